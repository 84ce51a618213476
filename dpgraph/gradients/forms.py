"""What a form of per-sample gradients can do, whatever it is made of."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from dpgraph.gradients.certified import MOST_PRODUCTS, Certified, rounding

__all__ = [
    "Form",
    "Gradient",
    "accumulated",
    "beside",
    "chain_of",
    "in_float64",
    "mask_samples",
    "materialise",
    "norm_sq_terms",
    "summed",
    "tensors_of",
    "weigh_samples",
    "weighted_sum",
    "with_tensors",
]

# Products that a library adds up in a row, before the sum goes to memory.
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Form(ABC):
    """Per-sample gradients G_b of one parameter, b = 1..B, all of one shape [*shape], not necessarily held.

    Every method treats a sample by itself: a value that is not finite in one sample never reaches another one's.
    """

    is_held: ClassVar[bool] = False  # whether what is squared is what is added up

    @abstractmethod
    def norm_sq(self) -> Certified:
        """|G_b|^2."""

    @abstractmethod
    def size(self) -> Tensor:
        """The sum of the norms of what adds up to G_b, [B], float64: no less than |G_b|."""

    def norm_sq_and_size(self) -> tuple[Certified, Tensor]:
        """Both of them, at the price of one where one comes with the other."""
        return self.norm_sq(), self.size()

    def dot(self, other: "Form", sizes: Tensor) -> Certified:
        """<G_b, H_b> with another form of the same shape; `sizes` is the product of their sizes, [B]."""
        share = min(rounding(_numbers(self) * _numbers(other)), rounding(MOST_PRODUCTS))
        return Certified(self.product(other), share * sizes)

    @abstractmethod
    def product(self, other: "Form") -> Tensor:
        """The same as a number alone, [B], with products and sums in float64.

        The form that holds less asks the other one: a table's rows look theirs up in whatever it is.
        """

    @property
    @abstractmethod
    def num_roundings(self) -> int:
        """How many roundings, at most, a sample's own terms pass through in `weighted_sum`, in float32 or better."""

    @abstractmethod
    def weighted_sum(self, w: Tensor) -> Tensor:
        """sum_b w_b G_b, [*shape], float32 or better.

        A sample of weight 0 adds exactly nothing, whatever it holds.
        """

    @abstractmethod
    def materialise(self) -> Tensor:
        """All G_b, [B, *shape]."""

    @abstractmethod
    def scaled(self, c: Tensor | float) -> "Form":
        """c G_b, for a scalar c that depends on no sample."""


Gradient = tuple[Form, ...]
"""A per-sample gradient as the sum of what the uses of the parameter contribute."""


def materialise(gradient: Gradient) -> Tensor:
    """sum_i G_i,b for every b, [B, *shape]."""
    total = gradient[0].materialise()
    for form in gradient[1:]:
        total = total + form.materialise()
    return total


def norm_sq_terms(gradient: Gradient) -> list[Certified]:
    """What |sum_i G_i|^2 = sum_i |G_i|^2 + 2 sum_{i<j} <G_i, G_j> is the sum of."""
    if len(gradient) == 1 and gradient[0].is_held:
        return [gradient[0].norm_sq()]
    squares, sizes = zip(*(form.norm_sq_and_size() for form in gradient), strict=True)
    pairs = combinations(zip(gradient, sizes, strict=True), 2)
    lost = [(f.num_roundings + len(gradient)) * _half_ulp(f) * size for f, size in zip(gradient, sizes, strict=True)]
    first = replace(squares[0], lost=sum(lost[1:], start=lost[0]))
    return [first, *squares[1:], *(g.dot(h, of_g * of_h).times(2) for (g, of_g), (h, of_h) in pairs)]


def _half_ulp(form: Form) -> float:
    """Half the distance of 1 to the next number, where the form is weighed and added up."""
    floating = [x for x in tensors_of((form,)) if x.is_floating_point()]
    return max(torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps for x in floating) / 2


def chain_of(positions: int | torch.SymInt) -> int:
    """Roundings in a sum of products over so many positions: a library adds up no more than `BLOCK` in a row.

    That is a model, for which see docs/arithmetic.md.
    """
    return min(positions, BLOCK) if isinstance(positions, int) else BLOCK


def weighted_sum(gradient: Gradient, w: Tensor) -> Tensor:
    """sum_b w_b sum_i G_i,b, of the parameter's shape."""
    total = gradient[0].weighted_sum(w)
    for form in gradient[1:]:
        total = total + form.weighted_sum(w)
    return total


def tensors_of(gradient: Gradient) -> list[Tensor]:
    """The tensors that the forms hold, in order."""
    return [getattr(form, name) for form in gradient for name in _tensor_fields(form)]


def with_tensors(gradient: Gradient, tensors: Iterable[Tensor]) -> Gradient:
    """The same forms of other tensors, in the order of `tensors_of`."""
    left = iter(tensors)
    return tuple(replace(form, **{name: next(left) for name in _tensor_fields(form)}) for form in gradient)


def in_float64(form: Form) -> Form:
    """The same form with its floating-point tensors in float64."""
    return with_tensors((form,), [x.double() if x.is_floating_point() else x for x in tensors_of((form,))])[0]


def _numbers(form: Form) -> int:
    """How many a sample has of them, of all kinds. With another form's, no more are multiplied than all with all."""
    return sum(math.prod(x.shape[1:]) for x in tensors_of((form,)))


def _tensor_fields(form: Form) -> list[str]:
    return [field.name for field in fields(form) if isinstance(getattr(form, field.name), Tensor)]


def accumulated(x: Tensor) -> Tensor:
    """x in the dtype in which gradients are weighed and added up: float32, or float64 for float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def beside(x: Tensor, w: Tensor) -> Tensor:
    """w [B] as [B, 1, ..., 1], of as many axes as x."""
    return w.reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else w


def mask_samples(x: Tensor, w: Tensor) -> Tensor:
    """x [B, ...] with zeros for the samples of weight 0, w [B, 1, ..., 1]: 0 * inf would be NaN for all of them."""
    return torch.where(w != 0, x, 0)


def summed(x: Tensor) -> Tensor:
    """The sum over the samples, of x's dtype: added up in float64, and so rounded once."""
    total: Tensor = x.sum(0, dtype=torch.float64).to(x.dtype)
    return total


def weigh_samples(x: Tensor, w: Tensor) -> Tensor:
    """w_b x_b, of x's shape, in float32 or better, with w [B]; zeros for samples of weight 0, whatever they hold."""
    x, w = accumulated(x), beside(x, w)
    return mask_samples(x, w) * w.to(x.dtype)
