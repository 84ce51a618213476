"""Convolutions with as many groups as there are samples, which compilers take for a number: as operators of their own.

They are ATen's, and their results lie in memory in the order of their axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["convolve_groups", "convolve_groups_backward"]

aten = torch.ops.aten
SETTINGS = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups"
)


@torch.library.custom_op(
    "dpgraph::convolve_groups",
    mutates_args=(),
    schema=f"(Tensor image, Tensor weight, Tensor? bias, {SETTINGS}) -> Tensor",
)
def convolve_groups(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """`aten.convolution`."""
    result: Tensor = aten.convolution.default(
        image, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    )
    return result.contiguous()


@convolve_groups.register_fake
def _(image: Tensor, *args: object) -> Tensor:
    result = aten.convolution.default(image, *args)
    return image.new_empty(result.shape, dtype=result.dtype)


@torch.library.custom_op(
    "dpgraph::convolve_groups_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor image, Tensor weight, SymInt[]? bias_sizes, "
    f"{SETTINGS}, bool[] output_mask) -> Tensor[]",
)
def convolve_groups_backward(
    grad: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> list[Tensor]:
    """`aten.convolution_backward`; a gradient that is not asked for is empty."""
    results = aten.convolution_backward.default(
        grad,
        image,
        weight,
        bias_sizes,
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        output_mask,
    )
    return [grad.new_empty(0) if x is None else x.clone(memory_format=torch.contiguous_format) for x in results]


@convolve_groups_backward.register_fake
def _(grad: Tensor, *args: object) -> list[Tensor]:
    results = aten.convolution_backward.default(grad, *args)
    return [grad.new_empty(0) if x is None else grad.new_empty(x.shape, dtype=x.dtype) for x in results]
