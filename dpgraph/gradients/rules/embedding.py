"""Gradient rule of a table lookup.

Letters: B samples, T lookups of one sample, d columns of the table.
"""

import torch
from torch import Tensor

from dpgraph.gradients.forms import Form
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule
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
