"""The backend that `torch.compile` calls: capture, rewrite, lower."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule

from dpgraph.capture.batch_size import refuse_guards, refuse_specialisation
from dpgraph.capture.spell_out import spell_out
from dpgraph.capture.trace import batch_symbol, find_inputs, read_joint, require_all_gradients
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting, rewrite
from dpgraph.provenance.lattice import Provenance
from dpgraph.torch_compat import compile_eager, compile_inductor
from dpgraph.validate.check import GraphCheck
from dpgraph.validate.draws import Draw, find_draws
from dpgraph.validate.record import Validation
from dpgraph.validate.samples import Captured

__all__ = ["Compiler"]


@dataclass(frozen=True, slots=True)
class Call:
    """The tensors of the call that is being captured."""

    parameters: Mapping[int, str]
    samples: Mapping[int, int]
    probe: Tensor


@dataclass
class Compiler:
    """Compiles every graph that one module is captured into.

    Attributes:
        mechanism: what is trained, and how it is clipped.
        options: how to lower.
        rewritings: one for each capture, in order; the last is that of the newest.
        produced: provenance of the values that the last call returned, by id.
        checks: of each graph against itself, in order.
    """

    mechanism: Mechanism
    options: CompileOptions
    rewritings: list[Rewriting] = field(default_factory=list)
    produced: Mapping[int, Provenance] = field(default_factory=dict)
    checks: list[GraphCheck] = field(default_factory=list)
    _call: Call | None = None

    @property
    def validations(self) -> tuple[Validation, ...]:
        """Of each graph that ran, in the order of their capture."""
        return tuple(check.record for check in self.checks if check.record is not None)

    @contextmanager
    def during(self, parameters: Mapping[int, str], samples: Mapping[int, int], probe: Tensor) -> Any:
        """Tell the backend the tensors of the call within which it may be asked to compile."""
        self._call = Call(parameters, samples, probe)
        try:
            yield
        finally:
            self._call = None

    def __call__(self, gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """The backend: compile what Dynamo captured.

        Raises:
            UnsoundProgramError, UnsupportedProgramError: see `rewrite`.
        """
        call = self._call
        assert call is not None, "a graph was captured outside a call of the module"
        spell_out(gm)
        found = find_inputs(inputs, call.parameters, call.samples, call.probe)
        differentiable = require_all_gradients(inputs, found)
        fake_probe = gm.graph.find_nodes(op="placeholder")[found.probe].meta["example_value"]
        symbol, env = batch_symbol(fake_probe), fake_probe.fake_mode.shape_env
        if symbol is None:
            raise refuse_specialisation(env, gm, inputs, found.roles)

        def rewrite_joint(joint: GraphModule, _: Sequence[Any]) -> Graph:
            read = read_joint(joint, found, symbol)
            if batch_symbol(read.nodes[read.probe].meta["val"]) != symbol:
                raise refuse_specialisation(env, gm, inputs, found.roles)
            rewriting = rewrite(read, self.mechanism, self.options)
            refuse_guards(env, symbol, gm)  # after the analysis, which knows the line of more programs
            self.rewritings.append(rewriting)
            return rewriting.result

        lower, draws = compile_eager, list[tuple[Draw, ...]]()
        if self.options.backend == "inductor":
            replayed = self.options.batch == "fixed"
            lower = partial(compile_inductor, replayed=replayed, watch=lambda graph: draws.append(find_draws(graph)))
        compiled = lower(gm, differentiable, rewrite_joint, self.options.memory_budget)
        rewriting = self.rewritings[-1]
        placeholders = gm.graph.find_nodes(op="placeholder")
        names, fakes = zip(*((p.name, p.meta.get("example_value")) for p in placeholders), strict=True)
        check = GraphCheck(
            compiled,
            list(rewriting.stages.values())[-1],
            Captured(names, found.roles, fakes, found.probe, symbol, env),
            self.options,
            draws[-1] if draws else None,
            number=len(self.checks),
        )
        self.checks.append(check)
        return self._noting(compiled, rewriting.returned, check)

    def _noting(
        self, compiled: Callable[..., Any], returned: Sequence[Provenance], check: GraphCheck
    ) -> Callable[..., Any]:
        """`compiled`, once it is checked, which also leaves the provenance of what it returns in `produced`."""

        def run(*inputs: Any) -> Any:
            check(inputs)
            outputs = compiled(*inputs)
            self.produced = {id(x): p for x, p in zip(outputs, returned, strict=True)}
            return outputs

        return run
