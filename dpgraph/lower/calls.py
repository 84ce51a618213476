"""The way of one call: from its arguments to outputs whose backward is private."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.batch import BatchDims, BatchedCall, find_batch
from dpgraph.lower.capture_errors import refuse_detours, translate, went_around
from dpgraph.lower.compiler import Compiler
from dpgraph.lower.delivery import Delivery
from dpgraph.lower.guard import Guard
from dpgraph.lower.held_tensors import HeldTensors
from dpgraph.lower.known_tensors import name_tensors
from dpgraph.lower.one_call import OneCall
from dpgraph.lower.one_step import describe
from dpgraph.lower.padding import refuse_sums, without_padding
from dpgraph.lower.parameters import KnownParameters
from dpgraph.lower.probed import LossFunction, check_losses, make_probe, run_with_probe
from dpgraph.lower.released import Released
from dpgraph.lower.reversible import ReversibleChange
from dpgraph.mechanism import Mechanism
from dpgraph.options import CompileOptions
from dpgraph.torch_compat import batch_marked, capture_config, compile_separately

__all__ = ["Calls"]


class Calls:
    """Runs calls of a model through its private graphs, which are made where there is none for a call.

    Attributes:
        mechanism: what is trained, and how it is clipped; `change_bound` sets another R.
        compiler: what was captured.
        loss_fn: the loss in the graph, if there is one.
        batch_dims: the batch axes of the inputs.
        change: what was changed in the model to train it.
        is_withdrawn: whether that was undone, since no call has succeeded yet.
        released: the norms of the newest call.
        example: the call that the newest graph was captured at, without its tensors.
    """

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
        self.mechanism, self.loss_fn, self.batch_dims, self.change = mechanism, loss_fn, batch_dims, change
        self.released: Released | None = None
        self.example: Arguments | None = None
        self.is_withdrawn = False
        self._has_succeeded = False
        self._fixed_rows: int | None = None
        self._model, self._attributes = model, HeldTensors(model)
        self._one_call, self._guard = OneCall(), Guard()
        self._signature = inspect.signature(model.forward)
        self._known = KnownParameters.of(model, mechanism.trained)
        self._known.look_up(model, self._guard)
        self.compiler, self._compiled = self._make_compiler(options)

    def __call__(self, given: Arguments) -> Any:
        """What the model returns, or the losses.

        Raises:
            DPGraphError: the program is refused. While no call has succeeded, the model is after any error as it was
                before `dp_compile`, and the next call tries anew.
        """
        refuse_detours()
        with self._one_call:
            return self._run_or_withdraw(given)

    def change_bound(self, max_grad_norm: float) -> None:
        """Set R, which is an input of the graphs; where it is far from 1 they are forgotten, and compiled anew.

        Raises:
            ArgumentError: it is no finite number above 0.
        """
        before, self.mechanism = self.mechanism, self.mechanism.with_bound(max_grad_norm)
        self.compiler.mechanism = self.mechanism
        if self.mechanism.unit != before.unit:
            self.compiler, self._compiled = self._make_compiler(self.compiler.options)

    def _make_compiler(self, options: CompileOptions) -> tuple[Compiler, Callable[..., Any]]:
        compiler = Compiler(self.mechanism, options, self._attributes)
        return compiler, compile_separately(run_with_probe, compiler)

    def _run_or_withdraw(self, given: Arguments) -> Any:
        if self.is_withdrawn:
            self.change.redo(self._model, self.mechanism.trained)
            self.is_withdrawn = False
        names = self._known.look_up(self._model, self._guard)
        captured = len(self.compiler.rewritings)
        try:
            call = find_batch(given, self._signature, self.batch_dims, fixed_rows=self._fixed_rows)
            outputs = self._run(call, names)
        except BaseException as error:
            if not self._has_succeeded:
                self._withdraw()
            refusal = translate(error)
            if refusal is None or refusal is error:
                raise
            raise refusal from refusal.__cause__
        if not self.compiler.has_run:
            raise went_around()
        self._has_succeeded = True
        if self.compiler.options.batch == "fixed":
            self._fixed_rows = call.num_rows
        if len(self.compiler.rewritings) > captured:
            self.example = describe(given)
        return outputs

    def _withdraw(self) -> None:
        """Give the model back as it was, and forget what was captured."""
        self.change.undo()
        self.is_withdrawn = True
        self.compiler, self._compiled = self._make_compiler(self.compiler.options)

    def _run(self, call: BatchedCall, names: Mapping[int, str]) -> Any:
        """What the private graph returns, without padding; None if torch did not run one."""
        probe, given = self._make_probe(call), call.arguments
        rows = tuple(x for x in given.leaves() if id(x) in call.dims)
        delivery = Delivery(names, probe, call.num_samples, self.mechanism, self._guard)
        axes = tuple(call.dims[id(x)] for x in rows)
        marked = [(probe, 0), *zip(rows, axes, strict=True)]
        tensors = name_tensors(self._model, self.loss_fn, self._attributes, call, probe, names)
        with capture_config(), self.compiler.during(tensors, delivery), batch_marked(marked):
            outputs, _ = self._compiled(
                self._model, self.loss_fn, probe, rows, axes, given.args, given.kwargs, given.targets
            )
        if not self.compiler.has_run:
            return None
        if self.loss_fn is not None:
            check_losses(outputs, call.num_rows)
        if self.compiler.options.batch == "fixed":
            refuse_sums(outputs, self.compiler.produced)
        if call.num_rows == call.num_samples:
            return outputs
        return without_padding(outputs, self.compiler.produced, call)

    def _make_probe(self, call: BatchedCall) -> Tensor:
        """The probe of a call, whose gradient will be the norms."""
        like = next(p for name, p in self._model.named_parameters() if name in self._known.trained)
        self.released = Released(make_probe(call, self.mechanism, like), call.num_samples)
        return self.released.probe
