"""Gradient rules of matrix products over positions: linear layers, in whatever way they were written.

Letters: B samples, T positions of one sample, p rows and d columns of the gradient, H products side by side.
"""

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule

aten = torch.ops.aten


@gradient_rule(aten.mm.default)
def mm(a: PerSampleTensor | Tensor, b: PerSampleTensor | Tensor) -> Form | None:
    """G_b = A_b B_b with A_b [p, T], B_b [T, d]: the sum of T outer products."""
    if not (isinstance(a, PerSampleTensor) and isinstance(b, PerSampleTensor)):
        return None
    return Outer(a.stack.mT, b.stack)


@gradient_rule(aten.bmm.default)
def bmm(a: PerSampleTensor | Tensor, b: PerSampleTensor | Tensor) -> Form | None:
    """G_b = A_b B_b for each of H pairs: A_b [H, p, T], B_b [H, T, d]."""
    if not (isinstance(a, PerSampleTensor) and isinstance(b, PerSampleTensor)):
        return None
    return Dense(a.stack @ b.stack)
