"""What is known of the gradients that parameters hold: which are ours alone, and which a noisy step left.

A gradient is known by the tensor that holds it. Nothing is kept on parameters; what is kept dies with them.

| `p.grad` | origin |
| --- | --- |
| None | `NOTHING` |
| the tensor into which private graphs delivered, and nobody else | `DELIVERED` |
| the tensor that a noisy step left, as it left it | `STALE` |
| that tensor, written to since | `REWRITTEN` |
| any other: autograd's own, or set by hand | `FOREIGN` |

A tensor of zeros adds nothing, wherever it is from; whether it is one is looked at only where the answer decides.
Who edits a delivered gradient in place (`clip_grad_norm_`) edits a sum of clipped gradients, and it stays one of ours.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from dpgraph.sums import Sums

__all__ = [
    "Origin",
    "Record",
    "first_nonzero",
    "is_guarded",
    "origin",
    "pending",
    "record_of",
    "set_aside",
    "undo",
]


class Origin(Enum):
    """Where a parameter's gradient is from."""

    NOTHING = auto()
    DELIVERED = auto()
    STALE = auto()
    REWRITTEN = auto()
    FOREIGN = auto()


class Record:
    """What is known of one parameter's gradient.

    Attributes:
        guards: one object for each module that trains the parameter, while that lives.
        backward: the backward that delivered last, as torch counts them.
        was_empty: whether the parameter had no gradient before that backward.
        num_samples: how many samples were delivered since the gradient was empty, or a noisy step took it.
        num_parts: in how many calls.
        sums: how many of both are covered, at most.
        sensitivity: the largest of the calls.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.guards: WeakSet[Any] = WeakSet()
        self.backward = -1
        self.was_empty = False
        self.num_samples = self.num_parts = 0
        self.sums, self.sensitivity = Sums(), 0.0
        self._parameter = TensorWeakRef(parameter)
        self._delivered: TensorWeakRef | None = None
        self._unwatched_version: int | None = None
        self._noisy: TensorWeakRef | None = None
        self._noisy_version = -1

    @property
    def parameter(self) -> Tensor | None:
        """The parameter, while it lives."""
        found: Tensor | None = self._parameter()
        return found

    @property
    def is_guarded(self) -> bool:
        """Whether a living module trains the parameter."""
        return any(True for _ in self.guards)

    def note_delivery(
        self, gradient: Tensor, backward: int, *, was_empty: bool, num_samples: int, sums: Sums, sensitivity: float
    ) -> None:
        """`gradient` is the parameter's, and holds what private graphs delivered, and nothing else."""
        self.num_samples = num_samples + (0 if was_empty else self.num_samples)
        self.num_parts = 1 + (0 if was_empty else self.num_parts)
        self.sums, self.sensitivity = sums, max(sensitivity, 0.0 if was_empty else self.sensitivity)
        self.was_empty = was_empty or (self.was_empty and backward == self.backward)
        self.backward = backward
        self._delivered, self._noisy = TensorWeakRef(gradient), None
        self._unwatched_version = None

    def note_unwatched(self) -> None:
        """From now on nobody sees what autograd adds: a gradient that is written to is no longer known to be ours."""
        gradient = None if self._delivered is None else self._delivered()
        self._unwatched_version = None if gradient is None else _version(gradient)

    def note_noise(self, gradient: Tensor) -> None:
        """`gradient` is what a noisy step leaves in the parameter's place for it."""
        self._delivered, self._noisy = None, TensorWeakRef(gradient)
        self.num_samples = self.num_parts = 0
        self._noisy_version = _version(gradient)

    def forget(self) -> None:
        """Whatever the parameter holds now is not known to be ours alone."""
        self._delivered = None

    def origin_of(self, gradient: Tensor) -> Origin:
        """Where this gradient of the parameter is from."""
        if self._delivered is not None and self._delivered() is gradient:
            known = self._unwatched_version in (None, _version(gradient))
            return Origin.DELIVERED if known else Origin.FOREIGN
        if self._noisy is not None and self._noisy() is gradient:
            return Origin.STALE if self._noisy_version == _version(gradient) else Origin.REWRITTEN
        return Origin.FOREIGN


RECORDS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def record_of(parameter: Tensor) -> Record:
    """The record of a parameter, made if there is none."""
    found: Record | None = RECORDS.get(parameter)
    if found is None:
        found = Record(parameter)
        RECORDS[parameter] = found
    return found


def origin(parameter: Tensor) -> Origin:
    """Where the gradient is from that a parameter holds."""
    if parameter.grad is None:
        return Origin.NOTHING
    record: Record | None = RECORDS.get(parameter)
    return Origin.FOREIGN if record is None else record.origin_of(parameter.grad)


def is_guarded(parameter: Tensor) -> bool:
    """Whether a living module trains the parameter."""
    record: Record | None = RECORDS.get(parameter)
    return record is not None and record.is_guarded


def pending() -> bool:
    """Whether some guarded parameter holds a gradient that was delivered, and that no noisy step has taken."""
    return any(
        record.is_guarded and record.parameter is not None and origin(record.parameter) is Origin.DELIVERED
        for record in list(RECORDS.values())
    )


@contextmanager
def set_aside(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Within, the parameters have no gradients; afterwards they have theirs again, of which the same is known."""
    before = [(p, p.grad, vars(record_of(p)).copy()) for p in parameters]
    try:
        for p, _, _ in before:
            p.grad = None
        yield
    finally:
        for p, gradient, known in before:
            p.grad = gradient
            vars(record_of(p)).update(known)


def undo(backward: int) -> None:
    """Take back what a backward that failed has delivered; sums of earlier ones are then no longer taken for whole."""
    for record in list(RECORDS.values()):
        if record.backward == backward and record.parameter is not None:
            record.forget()
            if record.was_empty:
                record.parameter.grad = None


def first_nonzero(gradients: Sequence[Tensor]) -> int | None:
    """The place of the first of the tensors that is not zero everywhere; it waits for the device."""
    if not gradients:
        return None
    device = gradients[0].device
    flags = torch.stack([(g if g.layout == torch.strided else g.to_dense()).any().to(device) for g in gradients])
    return next((i for i, nonzero in enumerate(flags.tolist()) if nonzero), None)


def _version(x: Tensor) -> int:
    return -1 if x.is_inference() else x._version
