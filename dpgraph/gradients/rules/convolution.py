"""Gradient rule of convolutions: the gradients of weight and bias, without that of the input."""

from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule

aten = torch.ops.aten


@gradient_rule(aten.convolution_backward.default)
def convolution(
    grad: PerSampleTensor, image: PerSampleTensor | Tensor, weight: Tensor, bias_sizes: Any, *geometry: Any
) -> tuple[Form | None, Form | None, Form | None]:
    """G_b is the op for sample b alone; the input's gradient is not asked for a second time."""
    *shape, (_, wants_weight, wants_bias) = geometry
    # sum over the positions of the output
    bias = Dense(grad.stack.flatten(3).sum(3).sum(1)) if wants_bias else None
    if not wants_weight:
        return None, None, bias

    def one(g: Tensor, x: Tensor) -> Tensor:
        return aten.convolution_backward(g, x, weight, bias_sizes, *shape, [False, True, False])[1]

    if isinstance(image, PerSampleTensor):
        return None, Dense(torch.func.vmap(one)(grad.stack, image.stack)), bias
    return None, Dense(torch.func.vmap(one, in_dims=(0, None))(grad.stack, image)), bias
