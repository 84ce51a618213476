"""What a form of per-sample gradients can do, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = [
    "Form",
    "Gradient",
    "accumulation_dtype",
    "beside",
    "mask_samples",
    "materialise",
    "norm_sq_terms",
    "tensors_of",
    "weigh_samples",
    "weighted_sum",
    "with_tensors",
]


@dataclass(frozen=True, slots=True)
class Form(ABC):
    """Per-sample gradients G_b of one parameter, b = 1..B, all of one shape [*shape], not necessarily held.

    Every method treats a sample by itself: a value that is not finite in one sample never reaches another one's.
    """

    @abstractmethod
    def norm_sq(self) -> Tensor:
        """|G_b|^2, [B], float32 or better."""

    @abstractmethod
    def dot(self, other: "Form") -> Tensor:
        """<G_b, H_b> with another form of the same shape, [B], float32 or better.

        The form that holds less asks the other one: a table's rows look theirs up in whatever it is.
        """

    @abstractmethod
    def weighted_sum(self, w: Tensor) -> Tensor:
        """sum_b w_b G_b, [*shape]; a sample of weight 0 adds exactly nothing, whatever it holds."""

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


def norm_sq_terms(gradient: Gradient) -> list[Tensor]:
    """What |sum_i G_i|^2 = sum_i |G_i|^2 + 2 sum_{i<j} <G_i, G_j> is the sum of, [B] each."""
    terms = []
    for i, form in enumerate(gradient):
        terms.append(form.norm_sq())
        terms += [2 * earlier.dot(form) for earlier in gradient[:i]]
    return terms


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


def _tensor_fields(form: Form) -> list[str]:
    return [field.name for field in fields(form) if isinstance(getattr(form, field.name), Tensor)]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which norms are added up: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def beside(x: Tensor, w: Tensor) -> Tensor:
    """w [B] as [B, 1, ..., 1], of as many axes as x."""
    return w.reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else w


def mask_samples(x: Tensor, w: Tensor) -> Tensor:
    """x [B, ...] with zeros for the samples of weight 0, w [B, 1, ..., 1]: 0 * inf would be NaN for all of them."""
    return torch.where(w != 0, x, 0)


def weigh_samples(x: Tensor, w: Tensor) -> Tensor:
    """w_b x_b, of x's shape and dtype, with w [B]; zeros for the samples of weight 0, whatever they hold."""
    w = beside(x, w)
    return mask_samples(x, w) * w.to(x.dtype)
