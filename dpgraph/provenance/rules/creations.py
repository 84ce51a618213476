"""Ops that make values without reading any, and what other ops take sizes for."""

import torch

from dpgraph.torch_compat import find_operators

__all__ = ["CREATIONS", "SHAPED_BY_SIZES", "TAKES_SIZES"]

aten = torch.ops.aten
prims = torch.ops.prims

# Of an operand, these read the shape alone; all elements are equal, or drawn independently from one distribution.
CREATIONS = set(
    find_operators(
        "aten.full.default",
        "aten.full_like.default",
        "aten.empty.memory_format",
        "aten.empty_like.default",
        "aten.new_empty.default",
        "aten.new_empty_strided.default",
        "aten.empty_strided.default",
        "aten.new_full.default",
        "aten.new_zeros.default",
        "aten.rand.default",
        "aten.rand_like.default",
        "aten.randn.default",
        "aten.randn_like.default",
        "aten.randint.default",
        "aten.randint.low",
        "aten.randint_like.default",
        "aten.bernoulli.p",
        "aten.uniform.default",
        "aten.normal_functional.default",
        "aten.exponential.default",
        "prims.normal.default",
    )
)
# The sizes that these are given are those of their result, or of an operand.
SHAPED_BY_SIZES = CREATIONS | set(
    find_operators(
        "aten.view.default",
        "aten.expand.default",
        "aten.repeat.default",
        "aten.upsample_nearest2d_backward.default",
    )
)
# Sizes are values here, whose powers are counted.
TAKES_SIZES = {aten.scalar_tensor.default, aten.full.default, aten.full_like.default}
