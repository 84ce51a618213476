"""An operator that copies a value into memory of its own, which no pass of Inductor takes for a copy to save.

Inductor drops a `clone` whose result looks like its operand, and additions of zero and products with one whatever they
look like: a sum of an expanded tensor and zeros becomes the expanded tensor, whose elements share memory, and what is
then written into it in place is written into many of them. Of this operator it knows only that its result is new.
"""

from typing import Any

import torch
from torch import Tensor
from torch._inductor.ir import TensorBox
from torch._inductor.lowering import lowerings, register_lowering

__all__ = ["in_own_memory"]


@torch.library.custom_op("dpgraph::in_own_memory", mutates_args=())
def in_own_memory(x: Tensor) -> Tensor:
    """The value of `x` in contiguous memory, of which each element has its own place."""
    return x.clone(memory_format=torch.contiguous_format)


@in_own_memory.register_fake
def _fake(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


@register_lowering(torch.ops.dpgraph.in_own_memory.default, type_promotion_kind=None)
def _copied(x: TensorBox) -> Any:
    return lowerings[torch.ops.aten.clone.default](x)
