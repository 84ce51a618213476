"""When two runs of one graph differ by more than rounding.

Two compilations round differently, so values agree to about the square root of the precision in which they were
computed: half of the digits may go in sums that cancel. What differs by more is measured against itself, with inputs
and results that are rounded differently: a gradient that is zero in exact arithmetic, a maximum between equals, or a
ReLU of nearly zero moves as much by itself as it differs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph

from dpgraph.validate.draws import is_random

__all__ = ["Difference", "Freedom", "Precision", "compare", "precision_of"]

# Sums in another order differ by some units in the last place of the largest terms; in half precision that would be a
# quarter of them, and a share of the tolerance counts.
UNITS = 32
SHARE = 1 / 8
# How many times as far as it was seen to move by rounding a value may.
FREEDOM = 4.0


@dataclass(frozen=True, slots=True)
class Precision:
    """Of the coarsest floating dtype that a graph computes in.

    Attributes:
        eps: the distance of 1 from the next larger number.
        dtype: it.
    """

    eps: float
    dtype: torch.dtype

    @property
    def tolerance(self) -> float:
        """The relative difference that is taken for rounding: half of the digits."""
        return math.sqrt(self.eps)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a value is from what it should be.

    Attributes:
        name: of the value.
        absolute: Euclidean norm of the difference, where both are finite.
        relative: that, over the norm of the value as it should be; infinite if both are not finite in the same places.
        allowed: what `absolute` may be.
        same_places: whether both are finite in the same places.
    """

    name: str
    absolute: float
    relative: float
    allowed: float
    same_places: bool

    @property
    def exceeds(self) -> bool:
        """Whether it is more than rounding at first sight."""
        return not (self.same_places and self.absolute <= self.allowed)


def precision_of(graph: Graph) -> Precision:
    """The coarsest floating dtype of all values, random numbers aside."""
    values = (n.meta.get("val") for n in graph.nodes if n.op != "output" and not _draws(n))
    dtypes = {x.dtype for x in values if isinstance(x, Tensor) and (x.dtype.is_floating_point or x.dtype.is_complex)}
    coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)
    return Precision(torch.finfo(coarsest).eps, coarsest)


def compare(
    found: Mapping[str, Tensor | None],
    expected: Mapping[str, Tensor | None],
    precision: Precision,
    *,
    together: Iterable[str] = (),
) -> dict[str, Difference]:
    """The difference of each value.

    Args:
        found: values of one run; None is a gradient that is not there.
        expected: those of the other.
        precision: of the graph.
        together: names of values that were added up out of parts of one size: gradients. One that is small beside the
            largest of them is as exact as that.
    """
    largest = max((_norm(x) for name in together if (x := expected[name]) is not None), default=0.0)
    shared, floor = set(together), min(UNITS * precision.eps, SHARE * precision.tolerance) * largest
    return {
        name: _difference(name, x, expected[name], precision, floor if name in shared else 0)
        for name, x in found.items()
    }


class Freedom:
    """How far a value moves by itself, as seen so far.

    Args:
        difference: of `found` from `expected`.
        found: the value.
        expected: what it should be.
    """

    def __init__(self, difference: Difference, found: Tensor | None, expected: Tensor | None) -> None:
        self._difference = difference
        self._found = found
        self._expected = expected
        self._distance = 0.0
        self._disputed: Tensor | None = None
        if found is not None and expected is not None and found.shape == expected.shape:
            self._disputed = _is_finite(found) != _is_finite(expected)

    def see(self, moved: Tensor | None) -> None:
        """Take note of what the value should be if everything that leads to it is rounded differently."""
        if moved is None or self._disputed is None or self._found is None or self._expected is None:
            return
        self._disputed = self._disputed & (_is_finite(moved) != _is_finite(self._found))
        self._distance = max(self._distance, _distance(moved, self._expected))

    @property
    def covers_difference(self) -> bool:
        """Whether the value differs by no more than it moves by itself."""
        if self._disputed is None or self._disputed.any():
            return False
        return self._difference.absolute <= self._difference.allowed + FREEDOM * self._distance


def _draws(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and is_random(node)


def _difference(
    name: str, found: Tensor | None, expected: Tensor | None, precision: Precision, allowed: float
) -> Difference:
    if found is None or expected is None or found.shape != expected.shape or found.dtype != expected.dtype:
        same = found is None and expected is None
        return Difference(name, 0.0 if same else math.inf, 0.0 if same else math.inf, 0.0, same)
    scale = _norm(expected)
    absolute = _distance(found, expected)
    if found.dtype.is_floating_point or found.dtype.is_complex:
        allowed += precision.tolerance * scale
    same_places = bool((_is_finite(found) == _is_finite(expected)).all())
    relative = absolute / scale if scale > 0 else (math.inf if absolute > 0 else 0.0)
    return Difference(name, absolute, relative if same_places else math.inf, allowed, same_places)


def _is_finite(x: Tensor) -> Tensor:
    return torch.isfinite(x)


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(_exact(torch.where(_is_finite(x), x, 0))))


def _distance(x: Tensor, y: Tensor) -> float:
    """Norm of the difference, where both are finite."""
    if torch.equal(x, y):
        return 0.0
    both = _is_finite(x) & _is_finite(y)
    return float(torch.linalg.vector_norm(torch.where(both, _exact(x) - _exact(y), 0)))


def _exact(x: Tensor) -> Tensor:
    """Float64, if the device has it."""
    if x.dtype.is_complex:
        return x.to(torch.complex128)
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
