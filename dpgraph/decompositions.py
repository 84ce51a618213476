"""Operators that we take apart ourselves: torch leaves them whole, or takes them apart in a way that does not serve."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OWN_DECOMPOSITIONS"]


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    first, second = x.chunk(2, dim)
    return first * second.sigmoid()


def _weight_norm_backward(
    grad: Tensor, direction: Tensor, magnitude: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Gradients of v and g for the weight w = g v / |v|, with |v| over all axes but `dim`."""
    axes = [i for i in range(grad.ndim) if i != dim % grad.ndim]
    # dg = <dw, v> / |v|, dv = g / |v| (dw - v dg / |v|)
    grad_magnitude = (grad * direction).sum(axes, keepdim=True) / norms
    return magnitude / norms * (grad - direction * (grad_magnitude / norms)), grad_magnitude


def _replication_pad_backward(grad: Tensor, _: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient of an edge gathers that of its copies. Torch's own has other strides than its fake says."""
    for i in range(len(padding) // 2):
        grad = _gather_edges(grad, -1 - i, *padding[2 * i : 2 * i + 2])
    return grad


def _gather_edges(grad: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Along one axis; a negative padding has cut elements off, whose gradient is zero."""
    if before > 0:
        edge = grad.narrow(dim, 0, before + 1).sum(dim, keepdim=True)
        grad = torch.cat([edge, grad.narrow(dim, before + 1, grad.shape[dim] - before - 1)], dim)
    if after > 0:
        inner = grad.shape[dim] - after - 1
        edge = grad.narrow(dim, inner, after + 1).sum(dim, keepdim=True)
        grad = torch.cat([grad.narrow(dim, 0, inner), edge], dim)
    if before < 0 or after < 0:
        grad = F.pad(grad, [0, 0] * (-1 - dim) + [max(0, -before), max(0, -after)])
    return grad


def _max_unpool(x: Tensor, indices: Tensor, space: Sequence[int], *_: Any) -> Tensor:
    """Values written to their places within their own plane [*, *space]. Torch's own counts places over all planes."""
    num_axes = len(space)
    planes = x.new_zeros([*x.shape[:-num_axes], math.prod(space)])
    filled = planes.scatter(-1, indices.flatten(-num_axes), x.flatten(-num_axes))
    return filled.view([*x.shape[:-num_axes], *space])


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """`x` with rows of `source` added at places along an axis. Torch leaves it whole in bfloat16."""
    if x.ndim == 0:
        return _index_add(x[None], 0, index, source.reshape(1), alpha=alpha)[0]
    before = [None] * (dim % x.ndim)
    added = source if alpha == 1 else source * alpha
    total: Tensor = aten.index_put(x, [*before, index.reshape(-1)], added, accumulate=True)
    return total


aten = torch.ops.aten
OWN_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.glu.default: _glu,
    aten._weight_norm_interface_backward.default: _weight_norm_backward,
    aten.index_add.default: _index_add,
    aten.max_unpool2d.default: _max_unpool,
    aten.max_unpool3d.default: _max_unpool,
    aten.replication_pad1d_backward.default: _replication_pad_backward,
    aten.replication_pad2d_backward.default: _replication_pad_backward,
    aten.replication_pad3d_backward.default: _replication_pad_backward,
}
