"""The backend that `torch.compile` calls: capture, rewrite, lower."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from dpgraph.capture.batch_size import refuse_guards, refuse_specialisation
from dpgraph.capture.joint import Parameter
from dpgraph.capture.spell_out import spell_out
from dpgraph.capture.trace import (
    CallTensors,
    GraphInputs,
    batch_symbol,
    check_constants,
    find_inputs,
    read_joint,
    require_all_gradients,
)
from dpgraph.capture.writes import find_writes
from dpgraph.lower.delivery import Delivery
from dpgraph.lower.empty import EmptyCall
from dpgraph.lower.forward import Evaluation, Forward, is_floating
from dpgraph.lower.held_tensors import HeldTensors
from dpgraph.lower.written import check_written
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting, rewrite
from dpgraph.provenance.lattice import Provenance, Refused, is_free
from dpgraph.public_sizes import warn_of_means
from dpgraph.torch_compat import compile_eager, compile_inductor, input_sources
from dpgraph.unrounded import around_autograd
from dpgraph.validate.check import GraphCheck
from dpgraph.validate.draws import Draw, find_draws
from dpgraph.validate.record import Validation
from dpgraph.validate.samples import Captured

__all__ = ["Compiler"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the module, within which a graph is run, and compiled if it is the first of its kind."""

    tensors: CallTensors
    delivery: Delivery


@dataclass
class Compiler:
    """Compiles every graph that one module is captured into.

    Attributes:
        mechanism: what is trained, and how it is clipped.
        options: how to lower.
        held: tensors in plain attributes of the model, to which a run adds.
        rewritings: one for each capture, in order; the last is that of the newest.
        produced: provenance of the values that the last call returned, by id.
        has_run: whether the last call ran a graph that was compiled here.
        checks: of each graph against itself, in order.
    """

    mechanism: Mechanism
    options: CompileOptions
    held: HeldTensors
    rewritings: list[Rewriting] = field(default_factory=list)
    produced: Mapping[int, Provenance] = field(default_factory=dict)
    has_run: bool = False
    checks: list[GraphCheck] = field(default_factory=list)
    _call: Call | None = None

    @property
    def validations(self) -> tuple[Validation, ...]:
        """Of each graph that ran, in the order of their capture."""
        return tuple(check.record for check in self.checks if check.record is not None)

    @contextmanager
    def during(self, tensors: CallTensors, delivery: Delivery) -> Iterator[None]:
        """Tell the backend the tensors of the call within which it may be asked to compile, or to run."""
        self._call, known = Call(tensors, delivery), len(self.rewritings)
        self.has_run, self.produced = False, {}
        try:
            yield
        finally:
            self._call = None
        for rewriting in self.rewritings[known:]:
            warn_of_means(rewriting.assumptions)

    def __call__(self, gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """The backend: compile what Dynamo captured.

        Raises:
            UnsoundProgramError, UnsupportedProgramError: see `rewrite`.
        """
        call = self._call
        assert call is not None, "a graph was captured outside a call of the module"
        found = find_inputs(inputs, input_sources(gm), call.tensors)
        differentiable = require_all_gradients(inputs, found)
        fake_probe = gm.graph.find_nodes(op="placeholder")[found.probe].meta["example_value"]
        symbol, env = batch_symbol(fake_probe), fake_probe.fake_mode.shape_env
        if symbol is None:
            raise refuse_specialisation(env, gm, inputs, found.roles)
        writes = find_writes(gm, call.tensors, symbol)
        spell_out(gm)

        def rewrite_joint(joint: GraphModule, _: Sequence[Any]) -> Graph:
            read = read_joint(joint, found, symbol, writes)
            if batch_symbol(read.nodes[read.probe].meta["val"]) != symbol:
                raise refuse_specialisation(env, gm, inputs, found.roles)
            rewriting = rewrite(read, self.mechanism, self.options)
            refuse_guards(env, symbol, gm)  # after the analysis, which knows the line of more programs
            self.rewritings.append(rewriting)
            return rewriting.result

        half = {i: x.dtype for i, x in enumerate(inputs) if isinstance(x, Tensor) and _is_half(x)}

        def around(outputs: Sequence[Any]) -> list[Any]:
            return around_autograd(outputs, half, found.probe)

        lower, draws = partial(compile_eager, around=around), list[tuple[Draw, ...]]()
        if self.options.backend == "inductor":
            replayed = self.options.batch == "fixed"
            lower = partial(
                compile_inductor,
                around=around,
                replayed=replayed,
                watch=lambda graph: draws.append(find_draws(graph)),
            )
        compiled = lower(gm, differentiable, rewrite_joint, self.options.memory_budget)
        rewriting = self.rewritings[-1]
        placeholders = gm.graph.find_nodes(op="placeholder")
        names, fakes = zip(*((p.name, p.meta.get("example_value")) for p in placeholders), strict=True)
        check = GraphCheck(
            compiled,
            rewriting.last,
            Captured(names, found.roles, fakes, found.probe, symbol, env),
            self.options,
            draws[-1] if draws else None,
            number=len(self.rewritings) - 1,
        )
        self.checks.append(check)
        constants = partial(check_constants, sources=input_sources(gm), found=found)
        return self._noting(compiled, self._delivering(found), rewriting, check, constants)

    def _delivering(self, found: GraphInputs) -> tuple[int, ...]:
        """Places of the inputs whose gradients are delivered: the trained parameters, and the probe."""
        trained = set(self.mechanism.trained)
        return (
            found.probe,
            *(i for i, r in enumerate(found.roles) if isinstance(r, Parameter) and r.name in trained),
        )

    def _noting(
        self,
        compiled: Callable[..., Any],
        delivering: Sequence[int],
        rewriting: Rewriting,
        check: GraphCheck,
        constants: Callable[..., list[Tensor]],
    ) -> Callable[..., Any]:
        """`compiled`, once it is checked, whose gradients are delivered; leaves the provenance of what it returns."""
        forward, returned = Forward(rewriting.stages["captured"]), rewriting.returned
        empty = EmptyCall(rewriting, forward)

        def run(*inputs: Any) -> Any:
            call = self._call
            assert call is not None, "a graph was run outside a call of the module"
            self.has_run = True
            shared = constants(inputs, call=call.tensors)
            check_written(forward, inputs)
            replaced = _without_padding(forward, returned, inputs, call.tensors)
            if call.tensors.num_samples:
                check(inputs)
            given = call.delivery.through(inputs, delivering)
            outputs = compiled(*given) if call.tensors.num_samples else empty(*given)
            described = [(x, p) for i, (x, p) in enumerate(zip(outputs, returned, strict=True)) if i not in replaced]
            self.produced = {id(x): p for x, p in described}
            free = [x for x, p in described if isinstance(x, Tensor) and is_free(p)]
            self.held.keep(read=shared, made=(x for x in free if not x.requires_grad))
            return [replaced.get(i, x) for i, x in enumerate(outputs)]

        return run


def _is_half(x: Tensor) -> bool:
    return x.is_floating_point() and torch.finfo(x.dtype).bits < torch.finfo(torch.float32).bits


def _without_padding(
    forward: Forward, returned: Sequence[Provenance], inputs: Sequence[Any], call: CallTensors
) -> Mapping[int, Any]:
    """Outputs that rows which fill up would falsify, by position, as they are, or are not known to be, without them.

    Those that depend on how many samples there are, and on no sample, are computed; where samples meet nobody can tell
    what would come out without the copies, and it is NaN.
    """
    if not call.is_padded:
        return {}
    with torch.no_grad(), torch.autocast(call.probe.device.type, enabled=False):
        evaluation = Evaluation(forward, inputs, num_samples=call.num_samples)
        known = {i: evaluation.run(node) for i, node in forward.counted.items()}
        lost = {i: forward.outputs[i] for i, found in enumerate(returned) if isinstance(found, Refused)}
        unknown = {i: node for i, node in lost.items() if i not in known and is_floating(node)}
        return known | {i: evaluation.make_up(node, torch.nan) for i, node in unknown.items()}
