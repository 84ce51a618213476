"""Gradient rule of convolutions, transposed, dilated and grouped ones too.

Letters: B samples, N images of one sample, C channels in, O channels out, `*` the axes of space, K the size of a
kernel. `torch.func.vmap` over the op would fix the number of samples, so the sum is written out over windows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.outer import Outer
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
    """Gradients of weight [O, C / groups, *] (or [C, O / groups, *] if transposed) and bias [O] for each sample.

    G_b = sum over images and positions of grad times the window of the image under the kernel there. A transposed
    convolution is the same with image and grad in each other's place.
    """
    if not isinstance(grad, PerSampleTensor) or not isinstance(weight, Tensor):
        return None
    g = grad.stack
    bias = Dense(g.flatten(3).sum(3).sum(1)) if wanted[2] else None
    if not wanted[1]:
        return None, None, bias
    x = image.stack if isinstance(image, PerSampleTensor) else image.expand(g.shape[0], *image.shape)
    positions, under = (x, g) if transposed else (g, x)
    windows = _windows(under, positions.shape[3:], weight.shape[2:], stride, padding, dilation)
    return None, _sum_of_products(positions, windows, groups, tuple(weight.shape)), bias


def _windows(
    x: Tensor,
    positions: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """x [B, N, C, *] to what lies under the kernel at each position: [B, N, C, *positions, *kernel]."""
    x = torch.nn.functional.pad(x, [p for size in reversed(padding) for p in (size, size)])
    for i, (count, size, step, gap) in enumerate(zip(positions, kernel, stride, dilation, strict=True)):
        x = x.unfold(3 + i, gap * (size - 1) + 1, step)[..., ::gap].narrow(3 + i, 0, count)
    return x


def _sum_of_products(positions: Tensor, windows: Tensor, groups: int, shape: tuple[int, ...]) -> Form:
    """positions [B, N, P, *], windows [B, N, Q, *, K...]: the sum over N and * of their products in each group."""
    rank = positions.ndim - 3
    # u [B, T, P] and v [B, T, Q, K]
    u = positions.movedim(2, -1).flatten(1, rank + 1)
    v = windows.movedim(2, 2 + rank).flatten(3 + rank).flatten(1, rank + 1)
    if groups == 1:
        return Outer(u, v.flatten(2), shape)
    u, v = u.unflatten(2, (groups, -1)), v.unflatten(2, (groups, -1)).flatten(3)
    # [B, groups, P / groups, T] @ [B, groups, T, Q / groups * K]
    return Dense((u.permute(0, 2, 3, 1) @ v.transpose(1, 2)).reshape(u.shape[0], *shape))
