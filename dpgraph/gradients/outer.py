"""The form of a matrix product: per-sample gradients that are sums of outer products."""

from dataclasses import dataclass

from torch import Tensor

from dpgraph.gradients.forms import Form, accumulation_dtype, mask_samples

__all__ = ["Outer"]


@dataclass(frozen=True, slots=True)
class Outer(Form):
    """G_b = sum_t u_bt v_bt^T, with u [B, T, p], v [B, T, d].

    The ghost norm (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, section 4) needs the two Gram
    matrices of a sample alone, never its gradient [p, d].
    """

    u: Tensor
    v: Tensor

    def norm_sq(self) -> Tensor:
        # sum_{s,t} (u_s . u_t) (v_s . v_t)
        dtype = accumulation_dtype(self.u.dtype)
        u, v = self.u.to(dtype), self.v.to(dtype)
        return ((u @ u.mT) * (v @ v.mT)).sum((1, 2))

    def dot(self, other: Form) -> Tensor:
        if not isinstance(other, Outer):
            return other.dot(self)
        # sum_{s,t} (u_s . p_t) (v_s . q_t)
        dtype = accumulation_dtype(self.u.dtype)
        gram_u = self.u.to(dtype) @ other.u.mT.to(dtype)
        gram_v = self.v.to(dtype) @ other.v.mT.to(dtype)
        return (gram_u * gram_v).sum((1, 2))

    def weighted_sum(self, w: Tensor) -> Tensor:
        # sum_{b,t} u_bt (w_b v_bt)^T, one matrix product
        u, v = mask_samples(self.u, w), mask_samples(self.v, w)
        scale = w.to(u.dtype).reshape(-1, 1, 1)
        u, v = (u * scale, v) if u.shape[-1] < v.shape[-1] else (u, v * scale)
        return u.reshape(-1, u.shape[-1]).mT @ v.reshape(-1, v.shape[-1])

    def materialise(self) -> Tensor:
        # [B, p, d]
        return self.u.mT @ self.v

    def scaled(self, c: Tensor | float) -> "Outer":
        return Outer(self.u, self.v * c)

    def transposed(self) -> "Outer":
        """G_b^T."""
        return Outer(self.v, self.u)
