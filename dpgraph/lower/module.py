"""The module that `dp_compile` returns."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.batch import BatchDims, BatchedCall, find_batch
from dpgraph.errors import ArgumentError
from dpgraph.lower.capture_errors import refuse_detours, translate, went_around
from dpgraph.lower.compiler import Compiler
from dpgraph.lower.delivery import Delivery
from dpgraph.lower.guard import Guard
from dpgraph.lower.held_tensors import HeldTensors
from dpgraph.lower.known_tensors import name_tensors
from dpgraph.lower.one_call import OneCall
from dpgraph.lower.one_step import describe, measure_one_step
from dpgraph.lower.own_class import class_like
from dpgraph.lower.padding import refuse_sums, without_padding
from dpgraph.lower.parameters import KnownParameters
from dpgraph.lower.probed import LossFunction, check_losses, check_targets, make_probe, run_with_probe
from dpgraph.lower.released import Released, SaysNorms
from dpgraph.lower.reversible import ReversibleChange
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting
from dpgraph.report.certificate import Certificate, make_certificate
from dpgraph.report.report import Report, make_report
from dpgraph.torch_compat import batch_marked, capture_config, compile_separately
from dpgraph.validate.record import Validation

__all__ = ["DPModule"]

SHARED_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class DPModule(SaysNorms, nn.Module):
    """A model whose backward leaves sums of clipped per-sample gradients in `p.grad`.

    It holds the very parameters, buffers and submodules of the model given, under the same names; other attributes
    are read through. In grad mode each call runs the compiled private graph; under `torch.no_grad()` it runs the model
    as it is.

    Formal guarantee: if the loss is a sum over the samples of terms that each depend on one row of the outputs, each
    call followed by one backward adds to the trained parameters' gradients a sum over the samples of terms of norm at
    most `sensitivity`, whatever the samples hold. The rows of all calls between two optimizer steps must be different
    samples.

    Edge cases: an empty batch adds zero; a sample whose norm is not finite adds zero and is counted in
    `num_nonfinite`; one whose norm is an upper bound adds less than it could, and is counted in `num_cancelled`; a
    batch of one is a batch, in which figures that samples meet in are returned as NaN.
    """

    def __new__(cls, model: nn.Module, *_: Any, loss_fn: LossFunction | None = None, **__: Any) -> "DPModule":
        return super().__new__(class_like(cls, model, takes_targets=loss_fn is not None))

    def __init__(
        self,
        model: nn.Module,
        mechanism: Mechanism,
        options: CompileOptions,
        *,
        loss_fn: LossFunction | None,
        batch_dims: BatchDims,
        change: ReversibleChange,
    ) -> None:
        super().__init__()
        for registry in SHARED_REGISTRIES:
            self.__dict__[registry] = model.__dict__[registry]
        self.training = model.training
        self._held = model
        self._mechanism = mechanism
        self._batch_dims = batch_dims
        self._loss_fn = loss_fn
        self._change = change
        self._one_call, self._guard, self._attributes = OneCall(), Guard(), HeldTensors(model)
        self._compiler = Compiler(mechanism, options, self._attributes)
        self._compiled: Callable[..., Any] = compile_separately(run_with_probe, self._compiler)
        self._known = KnownParameters.of(model, mechanism.trained)
        self._known.look_up(model, self._guard)
        self._signature = inspect.signature(model.forward)
        self._released: Released | None = None
        self._fixed_rows: int | None = None
        self._reported: tuple[Rewriting, Report] | None = None
        self._example: Arguments | None = None
        self._ran, self._is_withdrawn = False, False
        self._is_made = True

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # how to copy or pickle the model says nothing about this module
                raise
            return getattr(self.__dict__["_held"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the model; what this module itself knows is in no registry, which are the model's."""
        if "_is_made" not in self.__dict__ or name in self.__dict__ or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            self._held.__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold a copy of the model, and capture it anew at their first call."""
        rest = {"loss_fn": self._loss_fn, "batch_dims": self._batch_dims, "change": self._change}
        return _make_module, (self._held, self._mechanism, self._compiler.options, self._is_withdrawn, rest)

    def train(self, mode: bool = True) -> "DPModule":
        """Set training mode, for the model given too."""
        self._held.train(mode)
        self.training = mode
        return self

    @property
    def original_module(self) -> nn.Module:
        """The model given to `dp_compile`, which runs without anything of dpgraph."""
        return self._held

    @property
    def sensitivity(self) -> float:
        """The largest norm of what one sample adds to the trained parameters' gradients, as they are computed.

        R, and a little more for what is rounded; see docs/arithmetic.md.
        """
        return self._mechanism.sensitivity

    @property
    def rewriting(self) -> Rewriting:
        """What the compiler did at the newest capture.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        if not self._compiler.rewritings:
            raise ArgumentError(
                "the model was not captured yet",
                why="the graphs exist from the first call in grad mode on",
                fix="call the module once, or pass example_inputs to dp_compile",
            )
        return self._compiler.rewritings[-1]

    @property
    def report(self) -> Report:
        """What is trained and what the rewriting saved, at the sizes of the newest capture.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        rewriting = self.rewriting
        if self._reported is None or self._reported[0] is not rewriting:
            made = make_report(self._held, self._mechanism, self._compiler.options, rewriting, self._measure)
            self._reported = (rewriting, made)
        return self._reported[1]

    @property
    def validations(self) -> tuple[Validation, ...]:
        """What was compared of each compiled graph with its operators run one by one; see `CompileOptions.verify`."""
        return self._compiler.validations

    @property
    def certificate(self) -> Certificate:
        """What was proved of the graphs captured so far, under which assumptions, and what was taken on trust.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        _ = self.rewriting
        loss_inside = self._loss_fn is not None
        graphs = self._compiler.rewritings, self._compiler.validations
        return make_certificate(self._mechanism, *graphs, loss_inside=loss_inside, batch_dims=self._batch_dims)

    @property
    def graphs(self) -> Mapping[str, torch.fx.Graph]:
        """The joint graph after each pass of the newest capture, by the pass's name, in order."""
        return {name: joint.graph for name, joint in self.rewriting.stages.items()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Args:
            *args: those of the model's own forward.
            **kwargs: those of the model's own forward. If a `loss_fn` was given, `targets` is not among them: it is a
                tuple of what that takes besides the outputs.

        Returns:
            What the model returns; with `loss_fn`, the per-sample losses [B].

        Raises:
            DPGraphError: the program is refused. While no call in grad mode has succeeded, the model is after any error
                as it was before `dp_compile`, and the next call tries anew.
        """
        targets: tuple[Any, ...] = ()
        if self._loss_fn is not None:
            targets = kwargs.pop("targets", ())
            check_targets(self._loss_fn, targets)
        if not torch.is_grad_enabled():
            outputs = self._held(*args, **kwargs)
            return outputs if self._loss_fn is None else self._loss_fn(outputs, *targets)
        refuse_detours()
        with self._one_call:
            return self._forward(Arguments(args, kwargs, targets))

    def _forward(self, given: Arguments) -> Any:
        if self._is_withdrawn:
            self._change.redo(self._held, self._mechanism.trained)
            self._is_withdrawn = False
        names = self._known.look_up(self, self._guard)
        captured = len(self._compiler.rewritings)
        try:
            call = find_batch(given, self._signature, self._batch_dims, fixed_rows=self._fixed_rows)
            outputs = self._run(call, names)
        except BaseException as error:
            if not self._ran:
                self._withdraw()
            refusal = translate(error)
            if refusal is None or refusal is error:
                raise
            raise refusal from refusal.__cause__
        if not self._compiler.has_run:
            raise went_around()
        self._ran = True
        if self._compiler.options.batch == "fixed":
            self._fixed_rows = call.num_rows
        if len(self._compiler.rewritings) > captured:
            self._example = describe(given)
        return outputs

    def _withdraw(self) -> None:
        """Give the model back as it was, and forget what was captured."""
        self._change.undo()
        self._is_withdrawn = True
        self._compiler = Compiler(self._mechanism, self._compiler.options, self._attributes)
        self._compiled = compile_separately(run_with_probe, self._compiler)

    def _run(self, call: BatchedCall, names: Mapping[int, str]) -> Any:
        """What the private graph returns, without padding; None if torch did not run one."""
        probe, given = self._make_probe(call), call.arguments
        rows = tuple(x for x in given.leaves() if id(x) in call.dims)
        delivery = Delivery(names, probe, call.num_samples, self._mechanism.sums, self._guard)
        axes = tuple(call.dims[id(x)] for x in rows)
        marked = [(probe, 0), *zip(rows, axes, strict=True)]
        tensors = name_tensors(self, self._loss_fn, self._attributes, call, probe, names)
        with capture_config(), self._compiler.during(tensors, delivery), batch_marked(marked):
            outputs, _ = self._compiled(
                self._held, self._loss_fn, probe, rows, axes, given.args, given.kwargs, given.targets
            )
        if not self._compiler.has_run:
            return None
        if self._loss_fn is not None:
            check_losses(outputs, call.num_rows)
        if self._compiler.options.batch == "fixed":
            refuse_sums(outputs, self._compiler.produced)
        if call.num_rows == call.num_samples:
            return outputs
        return without_padding(outputs, self._compiler.produced, call)

    def _measure(self) -> int:
        """Bytes at the peak of a step like the newest capture's; norms of the last backward are kept."""
        assert self._example is not None, "a graph was captured outside a call"
        before = self._released
        peak = measure_one_step(self, self._example)
        self._released = before
        return peak

    def _make_probe(self, call: BatchedCall) -> Tensor:
        """The probe of a call, whose gradient will be the norms."""
        like = next(p for name, p in self.named_parameters() if name in self._known.trained)
        self._released = Released(make_probe(call, self._mechanism, like), call.num_samples)
        return self._released.probe


def _make_module(
    model: nn.Module, mechanism: Mechanism, options: CompileOptions, is_withdrawn: bool, rest: dict[str, Any]
) -> DPModule:
    rest["change"].remember()
    if is_withdrawn:
        rest["change"].redo(model, mechanism.trained)
    return DPModule(model, mechanism, options, **rest)
