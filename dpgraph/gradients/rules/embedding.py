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
    """A table [num_rows, *] that was read as table[index], or table[i, j]; the fallback has other ways to index."""
    if not (isinstance(zeros, Tensor) and isinstance(values, PerSampleTensor)):
        return None
    rows = _whole_numbers(indices, values.stack.shape[0])
    if rows is None or values.stack.ndim != rows[0].ndim + zeros.ndim - len(rows):
        return None
    if len(rows) > 1 or zeros.ndim != 2:
        return Dense(_put_in_each(zeros, rows, values.stack, accumulate))
    index = rows[0].flatten(1) if rows[0].ndim > 1 else rows[0].unsqueeze(1)
    v = values.stack.reshape(*index.shape, values.stack.shape[-1])
    return Rows(index % zeros.shape[0], v, zeros.shape[0])


def _whole_numbers(indices: Sequence[Any], num_samples: int) -> tuple[Tensor, ...] | None:
    """Indices of the first axes as integers [B, *], broadcast together; None if some are no integers, or left out."""
    if any(index is None for index in indices):
        return None
    whole = [x.stack if isinstance(x, PerSampleTensor) else x.expand(num_samples, *x.shape) for x in indices]
    if any(x.dtype.is_floating_point or x.dtype == torch.bool for x in whole):
        return None
    rank = max(x.ndim for x in whole)
    return tuple(
        torch.broadcast_tensors(*(x.reshape(num_samples, *[1] * (rank - x.ndim), *x.shape[1:]) for x in whole))
    )


def _put_in_each(zeros: Tensor, rows: tuple[Tensor, ...], v: Tensor, accumulate: bool) -> Tensor:
    """Each sample's values at its own places of a table of its own, [B, *table]."""
    own = torch.arange(v.shape[0], device=v.device).reshape(-1, *[1] * (rows[0].ndim - 1)).expand(rows[0].shape)
    return _table_of_each(zeros, v.shape[0]).index_put((own, *rows), v, accumulate)


def _table_of_each(zeros: Tensor, num_samples: Any) -> Tensor:
    """A table for each sample in memory of its own: expanded alone they would all lie in one place."""
    return zeros.expand(num_samples, *zeros.shape).clone(memory_format=torch.contiguous_format)


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
    return (Dense(aten.index_put(_table_of_each(zeros, g.shape[0]), [None, *indices], g, accumulate)),)
