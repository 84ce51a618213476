"""The form that holds every per-sample gradient: [B, *shape]."""

from dataclasses import dataclass

from torch import Tensor

from dpgraph.gradients.forms import Form, accumulation_dtype, weigh_samples

__all__ = ["Dense"]


@dataclass(frozen=True, slots=True)
class Dense(Form):
    """G_b = g[b], with g [B, *shape].

    Cheap where the parameter is small (biases, the affine part of norms), or where it is smaller than the activations
    that made it.
    """

    g: Tensor

    def norm_sq(self) -> Tensor:
        # sum_i g_bi^2
        g = self.g.to(accumulation_dtype(self.g.dtype))
        return (g * g).flatten(1).sum(1) if g.ndim > 1 else g * g

    def dot(self, other: Form) -> Tensor:
        if not isinstance(other, Dense):
            return other.dot(self)
        # sum_i g_bi h_bi
        dtype = accumulation_dtype(self.g.dtype)
        product = self.g.to(dtype) * other.g.to(dtype)
        return product.flatten(1).sum(1) if product.ndim > 1 else product

    def weighted_sum(self, w: Tensor) -> Tensor:
        # sum_b w_b g_b
        return weigh_samples(self.g, w).sum(0)

    def materialise(self) -> Tensor:
        return self.g

    def scaled(self, c: Tensor | float) -> "Dense":
        return Dense(self.g * c)
