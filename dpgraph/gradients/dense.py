"""The form that holds every per-sample gradient: [B, *shape]."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpgraph.gradients.certified import Certified, rounding
from dpgraph.gradients.forms import Form, summed, weigh_samples

__all__ = ["Dense"]


@dataclass(frozen=True, slots=True)
class Dense(Form):
    """G_b = g[b], with g [B, *shape].

    Cheap where the parameter is small (biases, the affine part of norms), or where it is smaller than the activations
    that made it.
    """

    is_held: ClassVar[bool] = True

    g: Tensor

    def norm_sq(self) -> Certified:
        # sum_i g_bi^2, of the very numbers that are weighed and added up
        return Certified(self.product(self), share=rounding(math.prod(self.g.shape[1:])))

    def size(self) -> Tensor:
        if self.g.ndim == 1:
            return self.g.double().abs()
        size: Tensor = torch.linalg.vector_norm(self.g, dim=tuple(range(1, self.g.ndim)), dtype=torch.float64)
        return size

    def product(self, other: Form) -> Tensor:
        if not isinstance(other, Dense):
            return other.product(self)
        # sum_i g_bi h_bi
        g = self.g.double()
        product = g * (g if other is self else other.g.double())
        return product.flatten(1).sum(1) if product.ndim > 1 else product

    @property
    def num_roundings(self) -> int:
        return 2

    def weighted_sum(self, w: Tensor) -> Tensor:
        # sum_b w_b g_b
        return summed(weigh_samples(self.g, w))

    def materialise(self) -> Tensor:
        return self.g

    def scaled(self, c: Tensor | float) -> "Dense":
        return Dense(self.g * c)
