"""Gradient rules of table lookups.

Letters: B samples, T lookups of one sample, d columns of the table.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form, Gradient, materialise
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule, linear_rule
from dpgraph.gradients.rows import Rows

aten = torch.ops.aten


@gradient_rule(aten.embedding_dense_backward.default)
def embedding(
    grad: PerSampleTensor, indices: PerSampleTensor | Tensor, num_rows: int, padding: int, by_count: bool
) -> Form | None:
    """Row index_bt gets v_bt; the padding row gets nothing."""
    if by_count:
        return None
    v = grad.stack.flatten(1, -2)
    index = indices.stack if isinstance(indices, PerSampleTensor) else indices.expand(grad.stack.shape[:-1])
    index = index.reshape(v.shape[0], v.shape[1])
    if padding >= 0:
        v = torch.where((index == padding).unsqueeze(-1), 0, v)
    return Rows(index, v, num_rows)


@gradient_rule(aten.index_put.default)
def index_put(
    zeros: Any, indices: Sequence[Any], values: PerSampleTensor | Tensor, accumulate: bool = False
) -> Form | None:
    """A table [num_rows, d] that was read as table[index]; other ways to index are left to the fallback."""
    if not (
        isinstance(zeros, Tensor) and zeros.ndim == 2 and len(indices) == 1 and isinstance(values, PerSampleTensor)
    ):
        return None
    v, (index,) = values.stack, indices
    rows = index.stack if isinstance(index, PerSampleTensor) else index.expand(v.shape[0], *index.shape)
    if rows.dtype.is_floating_point or rows.dtype == torch.bool or v.ndim != rows.ndim + 1:
        return None
    rows = rows.flatten(1) if rows.ndim > 1 else rows.unsqueeze(1)
    return Rows(rows % zeros.shape[0], v.reshape(*rows.shape, v.shape[-1]), zeros.shape[0])


@linear_rule(aten.embedding_dense_backward.default)
def embedding_of_shared(
    gradient: Gradient, indices: Tensor, num_rows: int, padding: int, by_count: bool
) -> Gradient | None:
    """A table that all samples read at the same indices, such as one of relative positions, after their sum."""
    form = embedding(PerSampleTensor(materialise(gradient)), indices, num_rows, padding, by_count)
    return (form,) if isinstance(form, Form) else None


@linear_rule(aten.index_put.default)
def index_put_of_shared(
    zeros: Tensor, indices: Sequence[Any], gradient: Gradient, accumulate: bool = False
) -> Gradient | None:
    """The same for a table that was read as table[index], or table[:, i, j]."""
    g = materialise(gradient)
    form = index_put(zeros, indices, PerSampleTensor(g), accumulate)
    if isinstance(form, Form):
        return (form,)
    used = [i for i, index in enumerate(indices) if index is not None]
    adjacent = used == list(range(used[0], used[-1] + 1))
    rank = zeros.ndim - len(used) + max(indices[i].ndim for i in used)
    if not adjacent or g.ndim != 1 + rank:
        return None
    return (Dense(aten.index_put(zeros.expand(g.shape[0], *zeros.shape), [None, *indices], g, accumulate)),)
