"""Gradient rule of convolutions, transposed, dilated and grouped ones too.

Letters: B samples, O channels out, C channels in, `*` the axes of space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.convolved import Convolved, Geometry
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.registry import PerSampleTensor, gradient_rule

aten = torch.ops.aten
Results = tuple[Form | None, Form | None, Form | None]


@gradient_rule(aten.convolution_backward.default)
def convolution(
    grad: PerSampleTensor | Tensor,
    image: PerSampleTensor | Tensor,
    weight: Any,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Results | None:
    """Gradients of weight [O, C / groups, *] (or [C, O / groups, *] if transposed) and bias [O] for each sample."""
    if not isinstance(grad, PerSampleTensor) or not isinstance(weight, Tensor):
        return None
    g = grad.stack
    bias = Dense(g.flatten(3).sum(3).sum(1)) if wanted[2] else None
    if not wanted[1]:
        return None, None, bias
    x = image.stack if isinstance(image, PerSampleTensor) else image.expand(g.shape[0], *image.shape)
    geometry = Geometry(tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups)
    return None, Convolved(g, x, weight, geometry), bias
