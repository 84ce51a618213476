"""Operators whose result Inductor keeps; other small values it computes anew in every kernel that reads them."""

import torch
from torch import Tensor
from torch._inductor.ir import TensorBox
from torch._inductor.lowering import register_lowering

__all__ = ["computed_once", "held_in_backward"]


@torch.library.custom_op("dpgraph::computed_once", mutates_args=())
def computed_once(x: Tensor) -> Tensor:
    """The value of `x`, which has memory of its own."""
    return x.clone()


@computed_once.register_fake
def _fake(x: Tensor) -> Tensor:
    return x.clone()


@register_lowering(torch.ops.dpgraph.computed_once.default, type_promotion_kind=None)
def _realised(x: TensorBox) -> TensorBox:
    x.realize()
    return x


@torch.library.custom_op("dpgraph::held_in_backward", mutates_args=())
def held_in_backward(x: Tensor, tangent: Tensor) -> Tensor:  # noqa: ARG001
    """The value of `x`, as the backward has it: the forward could not compute it, since a tangent is read with it."""
    return x.clone()


@held_in_backward.register_fake
def _fake_held(x: Tensor, _: Tensor) -> Tensor:
    return x.clone()


@register_lowering(torch.ops.dpgraph.held_in_backward.default, type_promotion_kind=None)
def _realised_in_backward(x: TensorBox, _: TensorBox) -> TensorBox:
    x.realize()
    return x
