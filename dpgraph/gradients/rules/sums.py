"""Gradient rule of sums: biases, the affine part of norms, and whatever else was broadcast over the samples."""

from collections.abc import Sequence
from typing import Any

import torch

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule

aten = torch.ops.aten


@gradient_rule(aten.sum.dim_IntList, aten.sum.default)
def total(x: PerSampleTensor, dims: Sequence[int] | None = None, keepdim: bool = False, **dtype: Any) -> Form:
    """G_b is the sum over the same axes of what sample b holds."""
    ndim = x.stack.ndim - 1
    axes = [1 + d % ndim for d in dims] if dims else list(range(1, ndim + 1))
    return Dense(x.stack.sum(axes, keepdim=keepdim, **dtype))
