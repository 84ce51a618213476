"""The form of a convolution: per-sample gradients that are sums of products with windows of the image.

Letters: B samples, N images of one sample, C channels in, O channels out, `*` the axes of space, K the size of a
kernel. `torch.func.vmap` over the op would fix the number of samples, so the sum is written out over windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpgraph.gradients.certified import Certified
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import (
    Form,
    accumulated,
    beside,
    chain_of,
    in_float64,
    mask_samples,
    weigh_samples,
)
from dpgraph.gradients.gram import total_size
from dpgraph.gradients.outer import Outer
from dpgraph.torch_compat import size_hint

__all__ = ["Convolved", "Geometry"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the kernel of a convolution moves, in the arguments' order of `aten.convolution`."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class Convolved(Form):
    """G_b = sum over images and positions of grad times the window of the image under the kernel there.

    grad [B, N, O, *], image [B, N, C, *], weight [O, C / groups, *] (or [C, O / groups, *] if transposed), which says
    the shape alone. A transposed convolution is the same with image and grad in each other's place. The windows are
    as large as a kernel times the image; the norm has to lay them out, the weighted sum does where that is faster.
    """

    grad: Tensor
    image: Tensor
    weight: Tensor
    geometry: Geometry

    def norm_sq(self) -> Certified:
        return self.products().norm_sq() if self.geometry.groups == 1 else self.dot(self, self.size().square())

    def norm_sq_and_size(self) -> tuple[Certified, Tensor]:
        return self.products().norm_sq_and_size() if self.geometry.groups == 1 else (self.norm_sq(), self.size())

    def size(self) -> Tensor:
        if self.geometry.groups == 1:
            return self.products().size()
        u, v = self._operands()
        return total_size(u.flatten(2), v.flatten(2))

    def product(self, other: Form) -> Tensor:
        if self.geometry.groups == 1:
            return self.products().product(other.products() if isinstance(other, Convolved) else other)
        own = Dense(in_float64(self).materialise())
        return own.product(own if other is self else Dense(in_float64(other).materialise()))

    @property
    def num_roundings(self) -> int:
        images, space = self.sides[0].shape[1], self.sides[0].shape[3:]
        return 2 + chain_of(images * math.prod(space))

    def weighted_sum(self, w: Tensor) -> Tensor:
        image = mask_samples(accumulated(self.image), beside(self.image, w))
        weighed = replace(self, grad=weigh_samples(self.grad, w), image=image, weight=accumulated(self.weight))
        return weighed._sum_by_product() if self.sums_by_product else weighed._sum_by_convolution()

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """What has an element for each position of the kernel, and what the windows are taken of."""
        return (self.image, self.grad) if self.geometry.transposed else (self.grad, self.image)

    @property
    def sums_by_product(self) -> bool:
        """Whether a product with the windows laid out is the faster sum, and not the convolution's own backward.

        On a CPU the latter takes longer by so much for each weight as two numbers of windows take; and a window of one
        element need not be laid out.
        """
        if self.grad.device.type != "cpu" or self.geometry.groups > 1:
            return False
        batch, images, channels, *space = (size_hint(size) for size in self.sides[0].shape)
        return math.prod(self.weight.shape[2:]) == 1 or batch * images * math.prod(space) < 2 * channels

    def _sum_by_product(self) -> Tensor:
        products = self.products()
        assert isinstance(products, Outer), "what has groups is summed by the convolution"
        return products.total()

    def _sum_by_convolution(self) -> Tensor:
        g = self.geometry
        total: Tensor = torch.ops.aten.convolution_backward(
            self.grad.flatten(0, 1),
            self.image.flatten(0, 1),
            self.weight,
            None,
            g.stride,
            g.padding,
            g.dilation,
            g.transposed,
            g.output_padding,
            g.groups,
            [False, True, False],
        )[1]
        return total

    def materialise(self) -> Tensor:
        return self.products().materialise()

    def scaled(self, c: Tensor | float) -> "Convolved":
        return Convolved(self.grad * c, self.image, self.weight, self.geometry)

    def products(self) -> Outer | Dense:
        """The same as products of matrices: summed already where there are groups."""
        groups = self.geometry.groups
        u, v = self._operands()
        if groups == 1:
            return Outer(u, v.flatten(2), tuple(self.weight.shape))
        u, v = u.unflatten(2, (groups, -1)), v.unflatten(2, (groups, -1)).flatten(3)
        # [B, groups, P / groups, T] @ [B, groups, T, Q / groups * K]
        return Dense((u.permute(0, 2, 3, 1) @ v.transpose(1, 2)).reshape(u.shape[0], *self.weight.shape))

    def _operands(self) -> tuple[Tensor, Tensor]:
        """u [B, T, P] and v [B, T, Q, K], where T are the positions in all images of a sample."""
        g, kernel = self.geometry, self.weight.shape[2:]
        positions, under = self.sides
        rank = positions.ndim - 3
        windows = _windows(under, positions.shape[3:], kernel, g.stride, g.padding, g.dilation)
        u = positions.movedim(2, -1).flatten(1, rank + 1)
        return u, windows.movedim(2, 2 + rank).flatten(3 + rank).flatten(1, rank + 1)


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
