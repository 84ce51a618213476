"""Numbers that come with a proved bound on their own rounding.

Norms are computed in float64 whatever the gradients are in: squares of float32 neither overflow nor underflow there,
and a sum of n products, in any order, is off by no more than n 2^-53 of the sum of their sizes, to first order. What a
kernel adds up in float32 comes with the kernel's own bound.

The standard model of rounding, and what it says of sums and inner products: Higham 2002, "Accuracy and Stability of
Numerical Algorithms", sections 2.2 and 3.1. docs/arithmetic.md has the derivations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "DELTA",
    "FLOOR",
    "MOST_PRODUCTS",
    "NOTHING",
    "SHARE",
    "Certified",
    "added_up",
    "clipping_norm",
    "rounding",
    "share_of_error",
]

# What the norm of a clipped gradient may exceed its bound by, as a share: nearly all of it by where the error of a
# square is let pass, the rest by what is rounded after that: the norm itself and the factor.
DELTA = 2.0**-10
# Half the distance from 1 to the next number of float64.
HALF_ULP = 2.0**-53
# An error of a square up to twice this share of it is let pass: sqrt(1 + 2 x) <= 1 + x.
SHARE = 15 / 16 * DELTA
# What is assumed of a number of products that is not known.
MOST_PRODUCTS = 2**30
# What underflow can take from a sum of squares in float64: 2^52 times the smallest subnormal number.
FLOOR = torch.finfo(torch.float64).tiny
# A square that is taken for 0: what is left of zeros, and of numbers that no factor makes visible.
NOTHING = 2.0**-960


@dataclass(frozen=True, slots=True)
class Certified:
    """A number for each sample: |true - value| <= share |value| + FLOOR + error.

    What is not finite says nothing, and its sample is dropped.

    Attributes:
        value: the number, [B], float64.
        error: [B], float64, >= 0; None where nothing cancels.
        share: of the value.
        lost: what the rounding of sums of the very gradient moves it by at most, as a norm [B]; None where nothing
            cancels in them.
    """

    value: Tensor
    error: Tensor | None = None
    share: float = 2 * HALF_ULP
    lost: Tensor | None = None

    def times(self, c: float) -> "Certified":
        """c times the number."""
        return Certified(c * self.value, None if self.error is None else abs(c) * self.error, self.share)

    def tensors(self) -> list[Tensor]:
        """The value, and the error and what is lost if there are such."""
        return [x for x in (self.value, self.error, self.lost) if x is not None]

    def with_tensors(self, tensors: Iterator[Tensor]) -> "Certified":
        """The same of other tensors, in the order of `tensors`."""
        value, error = next(tensors), None if self.error is None else next(tensors)
        return Certified(value, error, self.share, None if self.lost is None else next(tensors))


def rounding(count: int | torch.SymInt) -> float:
    """What a sum of so many products in float64 is off by at most, in any order, as a share of the sum of their sizes.

    It is twice the first-order bound, for what is of higher order and for the rounding of the bound itself.
    """
    return 2 * HALF_ULP * (count if isinstance(count, int) else MOST_PRODUCTS)


def added_up(terms: Sequence[Certified]) -> tuple[Tensor, Tensor]:
    """The sum of the numbers, which may be of either sign and cancel, [B], and all that it may be off by, [B].

    They are what the square of a norm n is the sum of, and with what is lost of the gradient, of norm e, it may come to
    (n + e)^2.
    """
    # Stacked, and not added one by one: a fused chain of additions would put every term off to the last one.
    values, errors = torch.stack([t.value for t in terms]), [t.error for t in terms if t.error is not None]
    share = max(t.share for t in terms) + rounding(len(terms))
    error = share * values.abs().sum(0) + FLOOR * len(terms)
    error = error + torch.stack(errors).sum(0) if errors else error
    square, lost = values.sum(0), [t.lost for t in terms if t.lost is not None]
    if lost:
        lost_sq = torch.stack(lost).square().sum(0)
        error = error + 2 * ((square + error).clamp_min(0) * lost_sq).sqrt() + lost_sq
    return square, error


def clipping_norm(square: Tensor, error: Tensor) -> Tensor:
    """The norm that clips: the true one exceeds it by at most `SHARE` of it.

    It is the root of the square where its error is small beside it, else that of the largest square there may be; 0 if
    that is `NOTHING`. NaN stays NaN.
    """
    norm_sq = torch.where(error <= 2 * SHARE * square, square, square + error)
    return torch.where(norm_sq <= NOTHING, 0, norm_sq).sqrt()


def share_of_error(square: Tensor, error: Tensor) -> Tensor:
    """The error as a share of the square; 0 where it is `NOTHING`, else inf where the square is not above 0."""
    share = torch.where(square > 0, error / square, torch.inf)
    return torch.where(error <= NOTHING, 0, share)
