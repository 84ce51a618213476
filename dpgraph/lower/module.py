"""The module that `dp_compile` returns."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dpgraph.capture.arguments import Arguments
from dpgraph.errors import ArgumentError
from dpgraph.lower.calls import Calls
from dpgraph.lower.one_step import measure_one_step
from dpgraph.lower.own_class import class_like
from dpgraph.lower.probed import check_targets
from dpgraph.lower.released import Released, SaysNorms
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.passes.pipeline import Rewriting
from dpgraph.report.certificate import Certificate, make_certificate
from dpgraph.report.report import Report, make_report
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

    def __new__(cls, model: nn.Module, calls: Calls) -> "DPModule":
        return super().__new__(class_like(cls, model, takes_targets=calls.loss_fn is not None))

    def __init__(self, model: nn.Module, calls: Calls) -> None:
        super().__init__()
        for registry in SHARED_REGISTRIES:
            self.__dict__[registry] = model.__dict__[registry]
        self.training = model.training
        self._held, self._calls = model, calls
        self._reported: tuple[Rewriting, Report] | None = None
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
        calls = self._calls
        rest = {"loss_fn": calls.loss_fn, "batch_dims": calls.batch_dims, "change": calls.change}
        return _make_module, (self._held, calls.mechanism, calls.compiler.options, calls.is_withdrawn, rest)

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
    def max_grad_norm(self) -> float:
        """R, which may be set between two calls: it is an input of the compiled graphs.

        Far from 1 (beyond 2^-20 to 2^20) a new R compiles them anew.

        Raises:
            ArgumentError: what is set is no finite number above 0.
        """
        return self._calls.mechanism.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float) -> None:
        self._calls.change_bound(value)

    @property
    def sensitivity(self) -> float:
        """The largest norm of what one sample adds to the trained parameters' gradients, as they are computed.

        R, and a little more for what is rounded; see docs/arithmetic.md.
        """
        return self._calls.mechanism.sensitivity

    @property
    def rewriting(self) -> Rewriting:
        """What the compiler did at the newest capture.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        if not self._calls.compiler.rewritings:
            raise ArgumentError(
                "the model was not captured yet",
                why="the graphs exist from the first call in grad mode on",
                fix="call the module once, or pass example_inputs to dp_compile",
            )
        return self._calls.compiler.rewritings[-1]

    @property
    def report(self) -> Report:
        """What is trained and what the rewriting saved, at the sizes of the newest capture.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        rewriting = self.rewriting
        if self._reported is None or self._reported[0] is not rewriting:
            mechanism, options = self._calls.mechanism, self._calls.compiler.options
            made = make_report(self._held, mechanism, options, rewriting, self._measure)
            self._reported = (rewriting, made)
        return self._reported[1]

    @property
    def validations(self) -> tuple[Validation, ...]:
        """What was compared of each compiled graph with its operators run one by one; see `CompileOptions.verify`."""
        return self._calls.compiler.validations

    @property
    def certificate(self) -> Certificate:
        """What was proved of the graphs captured so far, under which assumptions, and what was taken on trust.

        Raises:
            ArgumentError: nothing was captured yet.
        """
        _ = self.rewriting
        calls = self._calls
        graphs, loss_inside = (calls.compiler.rewritings, calls.compiler.validations), calls.loss_fn is not None
        return make_certificate(calls.mechanism, *graphs, loss_inside=loss_inside, batch_dims=calls.batch_dims)

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
        loss_fn = self._calls.loss_fn
        if loss_fn is not None:
            targets = kwargs.pop("targets", ())
            check_targets(loss_fn, targets)
        if not torch.is_grad_enabled():
            outputs = self._held(*args, **kwargs)
            return outputs if loss_fn is None else loss_fn(outputs, *targets)
        return self._calls(Arguments(args, kwargs, targets))

    @property
    def _released(self) -> Released | None:
        return self._calls.released

    def _measure(self) -> int:
        """Bytes at the peak of a step like the newest capture's; norms of the last backward are kept."""
        calls = self._calls
        assert calls.example is not None, "a graph was captured outside a call"
        before = calls.released
        peak = measure_one_step(self, calls.example)
        calls.released = before
        return peak


def _make_module(
    model: nn.Module, mechanism: Mechanism, options: CompileOptions, is_withdrawn: bool, rest: dict[str, Any]
) -> DPModule:
    rest["change"].remember()
    if is_withdrawn:
        rest["change"].redo(model, mechanism.trained)
    return DPModule(model, Calls(model, mechanism, options, **rest))
