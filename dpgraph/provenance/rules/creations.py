"""Ops that make values without reading any, and what other ops take sizes for."""

import torch
from torch.fx import Node

from dpgraph.torch_compat import find_operators, tree_leaves

__all__ = ["CREATIONS", "SHAPED_BY_SIZES", "TAKES_SIZES", "operands_read"]

aten = torch.ops.aten
prims = torch.ops.prims

# Arguments of which these read the shape alone, by position; what else they are given is a value, such as a bound. All
# elements are equal, or drawn independently from one distribution.
OF_SHAPES = {
    "aten.full.default": (0,),
    "aten.full_like.default": (0,),
    "aten.empty.memory_format": (0,),
    "aten.empty_like.default": (0,),
    "aten.new_empty.default": (0, 1),
    "aten.new_empty_strided.default": (0, 1, 2),
    "aten.empty_strided.default": (0, 1),
    "aten.new_full.default": (0, 1),
    "aten.new_zeros.default": (0, 1),
    "aten.rand.default": (0,),
    "aten.rand_like.default": (0,),
    "aten.randn.default": (0,),
    "aten.randn_like.default": (0,),
    "aten.randint.default": (1,),
    "aten.randint.low": (2,),
    "aten.randint_like.default": (0,),
    "aten.bernoulli.p": (0,),
    "aten.uniform.default": (0,),
    "aten.normal_functional.default": (0,),
    "aten.exponential.default": (0,),
    "prims.normal.default": (0,),
}
CREATIONS = {op: positions for name, positions in OF_SHAPES.items() for op in find_operators(name)}
# The sizes that these are given are those of their result, or of an operand.
SHAPED_BY_SIZES = set(
    find_operators(
        "aten.view.default",
        "aten.expand.default",
        "aten.repeat.default",
        "aten.upsample_nearest2d_backward.default",
    )
)
# Sizes are values here, whose powers are counted.
TAKES_SIZES = {aten.scalar_tensor.default, aten.full.default, aten.full_like.default}


def operands_read(node: Node) -> list[Node]:
    """The operands of which an op reads more than the shape, or than how large its result is to be."""
    of_shapes = CREATIONS.get(node.target, (0,) if node.target is prims.iota.default else ())  # type: ignore[call-overload]
    args = [x for i, x in enumerate(node.args) if i not in of_shapes]
    return [x for x in tree_leaves((args, node.kwargs)) if isinstance(x, Node)]
