"""The form of a matrix product: per-sample gradients that are sums of outer products."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dpgraph.gradients.certified import Certified
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form, accumulated, beside, chain_of, in_float64, mask_samples
from dpgraph.gradients.ghost_norm import ghost_norm_sq
from dpgraph.gradients.gram import gram_dot, total_size

__all__ = ["Outer"]

# Products with so few rows or columns a library adds up position by position, over the whole batch; they are taken in
# float64, which costs little.
THIN = 16


@dataclass(frozen=True, slots=True)
class Outer(Form):
    """G_b = sum_t u_bt v_bt^T, with u [B, T, p], v [B, T, d], seen as `shape` if that is not [p, d].

    The ghost norm (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, section 4) needs the two Gram
    matrices of a sample alone, never its gradient [p, d].
    """

    u: Tensor
    v: Tensor
    shape: tuple[int, ...] | None = None

    def norm_sq(self) -> Certified:
        # sum_{s,t} (u_s . u_t) (v_s . v_t)
        return ghost_norm_sq(self.u, self.v)[0]

    def norm_sq_and_size(self) -> tuple[Certified, Tensor]:
        return ghost_norm_sq(self.u, self.v)

    def size(self) -> Tensor:
        return total_size(self.u, self.v)

    def product(self, other: Form) -> Tensor:
        match other:
            case Outer() if self.v.shape[2] == other.v.shape[2]:
                # sum_{s,t} (u_s . p_t) (v_s . q_t)
                return gram_dot(self.u, other.u, self.v, other.v)
            case Outer() | Dense():
                return Dense(in_float64(self).materialise()).product(Dense(in_float64(other).materialise()))
            case _:
                return other.product(self)

    @property
    def num_roundings(self) -> int:
        return 3 if self._is_thin else 2 + chain_of(self.u.shape[1])

    @property
    def _is_thin(self) -> bool:
        return any(isinstance(size, int) and size <= THIN for size in (self.u.shape[2], self.v.shape[2]))

    def weighted_sum(self, w: Tensor) -> Tensor:
        # sum_{b,t} u_bt (w_b v_bt)^T, one matrix product
        w = beside(self.u, w)
        u, v = mask_samples(accumulated(self.u), w), mask_samples(accumulated(self.v), w)
        scale = w.to(u.dtype)
        u, v = (u * scale, v) if u.shape[-1] < v.shape[-1] else (u, v * scale)
        return Outer(u, v, self.shape).total()

    def total(self) -> Tensor:
        """sum_b G_b, [*shape]."""
        u, v = (x.flatten(0, 1).double() if self._is_thin else x.flatten(0, 1) for x in (self.u, self.v))
        total = (u.mT @ v).to(self.u.dtype)
        return total if self.shape is None else total.reshape(self.shape)

    def materialise(self) -> Tensor:
        # [B, *shape]
        g = self.u.mT @ self.v
        return g if self.shape is None else g.reshape(g.shape[0], *self.shape)

    def scaled(self, c: Tensor | float) -> "Outer":
        return Outer(self.u, self.v * c, self.shape)

    def transposed(self) -> "Outer":
        """G_b^T, of a form that is seen as [p, d]."""
        assert self.shape is None, "only a matrix has a transpose"
        return Outer(self.v, self.u)

    def seen_as(self, shape: Sequence[int]) -> "Outer":
        """The same gradients in another shape of as many elements, one of which may be -1."""
        rows, columns = self.u.shape[2], self.v.shape[2]
        missing = rows * columns // math.prod(s for s in shape if s != -1)
        full = tuple(missing if s == -1 else s for s in shape)
        return Outer(self.u, self.v, None if full == (rows, columns) else full)
