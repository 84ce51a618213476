"""The form of a table lookup: per-sample gradients that touch few rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dpgraph.gradients.certified import Certified
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form, in_float64, weigh_samples
from dpgraph.gradients.gram import gram, row_norms
from dpgraph.gradients.outer import Outer

__all__ = ["Rows"]


def _table_of_rows(index: Tensor, v: Tensor, num_rows: int) -> Tensor:
    """A table [num_rows, d] of zeros to whose row index_n v_n is added, of index [N] and v [N, d].

    One by one, rounding would grow with N. So the uses of a row are added up in float64 at one of them, whichever it
    is, and the others add zeros.
    """
    uses = torch.arange(index.shape[0], device=index.device)
    of_row = index.new_zeros(num_rows).index_put((index,), uses)
    sums = v.new_zeros(v.shape, dtype=torch.float64).index_put((of_row[index],), v.double(), accumulate=True)
    return v.new_zeros(num_rows, v.shape[1]).index_put_((index,), sums.to(v.dtype), accumulate=True)


torch.library.custom_op(
    "dpgraph::table_of_rows",
    _table_of_rows,
    mutates_args=(),
    schema="(Tensor index, Tensor v, SymInt num_rows) -> Tensor",
    tags=(torch.Tag.flexible_layout,),
).register_fake(lambda _, v, num_rows: v.new_empty(num_rows, v.shape[1]))


@dataclass(frozen=True, slots=True)
class Rows(Form):
    """G_b[n] = sum_t [index_bt = n] v_bt: `Outer` with one-hot u, for a table [num_rows, d].

    index [B, T] integers in [0, num_rows), v [B, T, d]. Repeated indices within a sample add up before the norm is
    taken.
    """

    index: Tensor
    v: Tensor
    num_rows: int

    def norm_sq(self) -> Certified:
        # sum_{s,t} [index_s = index_t] (v_s . v_t)
        return self.dot(self, self.size().square())

    def size(self) -> Tensor:
        return row_norms(self.v).sum(1)

    def product(self, other: Form) -> Tensor:
        match other:
            case Rows():
                same = self.index.unsqueeze(2) == other.index.unsqueeze(1)
                return torch.where(same, gram(self.v, other.v), 0).sum((1, 2))
            case Outer(u=u, v=v, shape=None):
                # sum_{s,t} u_t[index_s] (v_s . q_t)
                index = self.index.unsqueeze(1).expand(-1, u.shape[1], -1)
                picked = u.gather(2, index).mT.double()
                return (picked * gram(self.v, v)).sum((1, 2))
            case _:
                # sum_t v_t . h[index_t]
                h = other.g if isinstance(other, Dense) else in_float64(other).materialise()
                picked = h.gather(1, self.index.unsqueeze(2).expand(-1, -1, h.shape[2]))
                return (self.v.double() * picked.double()).sum((1, 2))

    @property
    def num_roundings(self) -> int:
        return 2

    def weighted_sum(self, w: Tensor) -> Tensor:
        # sum_{b,t} w_b v_bt, added to row index_bt
        v = weigh_samples(self.v, w).flatten(0, 1)
        table: Tensor = torch.ops.dpgraph.table_of_rows(self.index.flatten(), v, self.num_rows)
        return table

    def materialise(self) -> Tensor:
        # [B, num_rows, d]
        tables = self.v.new_zeros(self.v.shape[0], self.num_rows, self.v.shape[2])
        return tables.scatter_add(1, self.index.unsqueeze(2).expand_as(self.v), self.v)

    def scaled(self, c: Tensor | float) -> "Rows":
        return Rows(self.index, self.v * c, self.num_rows)
