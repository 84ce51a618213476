"""Transfer rules of ops that treat the indices of their leading axes apart: pooling, attention, sampling at points."""

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Refused, Shared
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.torch_compat import find_operators

aten = torch.ops.aten


def _leading(step: Step, operands: list[Node], num_leading: int) -> PerSample | Refused | Shared:
    """How the operands are per sample, if on one of the leading axes that the op treats apart."""
    found = step.agreed(operands)
    if isinstance(found, PerSample) and found.axis >= num_leading:
        return step.mixed("computes along the axis of the samples")
    return found


@transfer(
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_backward.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_efficient_attention_backward.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_cudnn_attention_backward.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default,
)
def attention(step: Step) -> Results:
    """Query, key, value [N, heads, T, d], a mask that broadcasts to [N, heads, T, S]: N and heads stay apart.

    A sample's axis with an inner factor would let heads or positions of other samples share its index of a mask, so
    all operands must agree on it exactly; operands of rank below 3 are random seeds and lengths.
    """
    wide = [x for x in step.tensors if x.meta["val"].ndim >= 3]
    narrow = [x for x in step.tensors if x.meta["val"].ndim < 3]
    found = _leading(step, wide, num_leading=2)
    if any(not isinstance(step.of(x), Shared) for x in narrow):
        found = step.mixed("takes sequence lengths over the whole batch")
    results = step.node.meta["val"]
    return tuple(found if isinstance(v, Tensor) and v.ndim >= 3 else Shared() for v in results)


def _windows(step: Step, num_space: int) -> Results:
    """[*leading, *space]: windows over the axes of space. An image without a batch has one leading axis less."""
    num_leading = len(step.shape(step.tensors[0])) - num_space
    return _leading(step, step.tensors, num_leading)


@transfer(
    *find_operators(
        "aten.max_pool2d_with_indices.default",
        "aten.max_pool2d_with_indices_backward.default",
        "aten.avg_pool2d.default",
        "aten.avg_pool2d_backward.default",
        "aten._adaptive_avg_pool2d.default",
        "aten._adaptive_avg_pool2d_backward.default",
        "aten.adaptive_max_pool2d.default",
        "aten.adaptive_max_pool2d_backward.default",
        "aten.upsample_nearest2d.default",
        "aten.upsample_nearest2d_backward.default",
        "aten.upsample_bilinear2d.default",
        "aten.replication_pad2d.default",
        "aten.replication_pad2d_backward.default",
    )
)
def windows_over_planes(step: Step) -> Results:
    """[N, C, H, W] or [C, H, W]."""
    return _windows(step, num_space=2)


@transfer(
    *find_operators(
        "aten._adaptive_avg_pool3d.default",
        "aten._adaptive_avg_pool3d_backward.default",
        "aten.adaptive_max_pool3d.default",
        "aten.adaptive_max_pool3d_backward.default",
        "aten.avg_pool3d.default",
        "aten.avg_pool3d_backward.default",
        "aten.max_pool3d_with_indices.default",
        "aten.max_pool3d_with_indices_backward.default",
        "aten.replication_pad3d.default",
        "aten.replication_pad3d_backward.default",
    )
)
def windows_over_volumes(step: Step) -> Results:
    """[N, C, D, H, W] or [C, D, H, W]."""
    return _windows(step, num_space=3)


@transfer(*find_operators("aten.replication_pad1d.default", "aten.replication_pad1d_backward.default"))
def windows_over_lines(step: Step) -> Results:
    """[N, C, L] or [C, L]."""
    return _windows(step, num_space=1)


@transfer(
    *find_operators(
        "prims._low_memory_max_pool_with_offsets.default",
        "prims._low_memory_max_pool_offsets_to_indices.default",
    )
)
def windows_of_a_kernel(step: Step) -> Results:
    """(operand, kernel_size): as many axes of space as the kernel has."""
    return _windows(step, num_space=len(step.args[1]))


@transfer(
    aten.grid_sampler_2d.default,
    aten.grid_sampler_2d_backward.default,
    aten.grid_sampler_3d.default,
    aten.grid_sampler_3d_backward.default,
)
def grid_sampler(step: Step) -> Results:
    """Images [N, C, *] read at points [N, *, rank]: N stays apart."""
    return _leading(step, step.tensors, num_leading=1)
