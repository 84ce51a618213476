"""Let a compiled graph run for the user once it was found to compute what its operators do one by one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.errors import MiscompiledError
from dpgraph.options import CompileOptions
from dpgraph.torch_compat import FakeTensor
from dpgraph.validate.blame import blame, blame_a_write
from dpgraph.validate.comparison import compare_with_op_by_op
from dpgraph.validate.draws import Draw, Draws, match_draws
from dpgraph.validate.record import Validation
from dpgraph.validate.samples import Captured, first_samples

__all__ = ["GraphCheck"]

# Batches of which little can be compared, such as samples without a finite gradient, are not tried for ever.
MAX_TRIES = 8


class GraphCheck:
    """Stands before one compiled graph.

    Attributes:
        record: what was compared so far; None before the first batch.
    """

    def __init__(
        self,
        compiled: Callable[..., Any],
        joint: JointGraph,
        captured: Captured,
        options: CompileOptions,
        draws: Sequence[Draw] | None,
        *,
        number: int,
    ) -> None:
        """Prepare to check.

        Args:
            compiled: the graph as it is run for the user, with autograd.
            joint: the graph that was compiled.
            captured: what is known of its inputs.
            options: when to check, and what compiled it.
            draws: random operators as Inductor has them; None if that was not seen.
            number: of the graph among those of the module.
        """
        self.record: Validation | None = None
        self._compiled = compiled
        self._joint = joint
        self._captured = captured
        self._options = options
        in_turn = Draws({}, in_order=True)  # both halves keep the order of the graph
        self._draws = in_turn if options.backend == "eager" else match_draws(joint.graph, draws)
        self._number = number
        self._tries_left = MAX_TRIES
        self._refusal: MiscompiledError | None = None

    def __call__(self, inputs: Sequence[Any]) -> None:
        """Pass if the graph computes what it should on these inputs, or need not be checked on them.

        Inputs, gradients and random numbers are afterwards as they were before.

        Raises:
            MiscompiledError: it does not, now or in an earlier call.
        """
        if self._refusal is not None:
            raise self._refusal
        if not self._is_due(inputs):
            return
        every = self._options.verify == "always" or self._options.batch == "fixed"
        try:
            new, is_enough = self._compare(*first_samples(self._captured, inputs, every=every))
        except MiscompiledError as error:
            self._refusal = error
            raise
        except Exception:
            if every:
                raise  # the user's own call would raise it
            new, is_enough = self._compare(list(inputs), self._num_rows(inputs))
        self._tries_left = 0 if is_enough else self._tries_left - 1
        self.record = new if self.record is None else _add(self.record, new)

    def _is_due(self, inputs: Sequence[Any]) -> bool:
        if self._options.verify == "never" or (self._options.verify == "first" and self._tries_left <= 0):
            return False
        if any(isinstance(x, Tensor) and (x.is_meta or isinstance(x, FakeTensor)) for x in inputs):
            return False
        return bool(inputs[self._captured.probe].detach().any())  # an empty batch has rows of weight 0 alone

    def _num_rows(self, inputs: Sequence[Any]) -> int:
        return int(inputs[self._captured.probe].shape[0])

    def _compare(self, inputs: Sequence[Any], rows: int) -> tuple[Validation, bool]:
        """A record of one batch, and whether it shows enough."""
        start = time.perf_counter()
        observed, outcome = compare_with_op_by_op(
            self._compiled, self._joint, self._captured, self._draws, inputs, rows
        )
        if observed.written:
            raise blame_a_write([self._captured.names[i] for i in observed.written], self._options)
        if outcome.wrong:
            raise blame(outcome, self._options)
        tolerance = outcome.reference.precision.tolerance
        within = [d.absolute / d.allowed for n, d in outcome.differences.items() if d.absolute and not d.exceeds]
        record = Validation(
            graph=self._number,
            backend=self._options.backend,
            num_batches=1,
            num_samples=rows,
            compared=tuple(outcome.differences),
            largest_difference=tolerance * max(within, default=0.0),
            tolerance=tolerance,
            rounding=outcome.rounding,
            left_out=outcome.left_out,
            seconds=time.perf_counter() - start,
        )
        return record, outcome.found_finite and bool(record.compared)


def _add(known: Validation, new: Validation) -> Validation:
    return replace(
        new,
        num_batches=known.num_batches + 1,
        largest_difference=max(known.largest_difference, new.largest_difference),
        rounding=tuple(dict.fromkeys((*known.rounding, *new.rounding))),
        seconds=known.seconds + new.seconds,
    )
