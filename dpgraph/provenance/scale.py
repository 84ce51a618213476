"""Count the powers of the number of samples that stand before a value.

A mean over the batch divides each sample's gradient by B, and `loss_reduction="mean"` multiplies by B again: that is
right if every gradient carries exactly one factor 1/B. Any other use of B as a value makes one sample's gradient depend
on how many others there are.
"""

from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import Refused, SummedOverSamples, mixes
from dpgraph.provenance.registry import Results, Step
from dpgraph.provenance.rules.pointwise import is_zero
from dpgraph.provenance.rules.reductions import MEANS
from dpgraph.torch_compat import find_operators, tree_leaves

__all__ = ["find_power", "power_of_number"]

aten = torch.ops.aten
prims = torch.ops.prims

PRODUCTS = {
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.mm.default,
    aten.bmm.default,
    aten.convolution.default,
}
QUOTIENTS = {aten.div.Tensor, aten.div.Scalar}
# The operands that are added, by position; `cat` takes a list of them.
ADDED = {
    aten.add.Tensor: (0, 1),
    aten.sub.Tensor: (0, 1),
    aten.cat.default: (0,),
    aten.where.self: (1, 2),
    aten.slice_scatter.default: (0, 1),
    aten.select_scatter.default: (0, 1),
    aten.diagonal_scatter.default: (0, 1),
    aten.scatter.src: (0, 3),
    aten.scatter_add.default: (0, 3),
    aten.index_put.default: (0, 2),
}
# Linear in the operand at this position; of the others, the samples' number must not stand before any.
LINEAR: dict[Any, int] = {
    **dict.fromkeys(
        find_operators(
            "aten.alias.default",
            "aten.clone.default",
            "aten.view.default",
            "aten.permute.default",
            "aten.unsqueeze.default",
            "aten.squeeze.default",
            "aten.squeeze.dim",
            "aten.squeeze.dims",
            "aten.expand.default",
            "aten.repeat.default",
            "aten.slice.Tensor",
            "aten.select.int",
            "aten.split.Tensor",
            "aten.split_with_sizes.default",
            "aten.unbind.int",
            "aten.unfold.default",
            "aten.neg.default",
            "aten._conj.default",
            "aten._fft_c2c.default",
            "aten._fft_r2c.default",
            "aten._fft_c2r.default",
            "aten.view_as_real.default",
            "aten.view_as_complex.default",
            "aten.sum.default",
            "aten.sum.dim_IntList",
            "aten.mean.default",
            "aten.mean.dim",
            "aten.cumsum.default",
            "aten.diagonal.default",
            "aten.index.Tensor",
            "aten._unsafe_index.Tensor",
            "aten.gather.default",
            "aten.embedding.default",
            "aten.embedding_dense_backward.default",
            "aten.scalar_tensor.default",
            "aten.convolution_backward.default",
            "aten.avg_pool2d.default",
            "aten.avg_pool3d.default",
            "aten.avg_pool2d_backward.default",
            "aten.avg_pool3d_backward.default",
            "aten._adaptive_avg_pool3d_backward.default",
            "aten._adaptive_avg_pool2d.default",
            "aten._adaptive_avg_pool2d_backward.default",
            "aten.max_pool2d_with_indices_backward.default",
            "aten.max_pool3d_with_indices_backward.default",
            "aten.upsample_nearest2d_backward.default",
            "aten.grid_sampler_2d_backward.default",
            "aten.grid_sampler_3d_backward.default",
            "aten._cdist_backward.default",
            "aten._scaled_dot_product_flash_attention_for_cpu_backward.default",
            "aten._scaled_dot_product_flash_attention_backward.default",
            "aten._scaled_dot_product_efficient_attention_backward.default",
            "aten._scaled_dot_product_cudnn_attention_backward.default",
            "aten._scaled_dot_product_fused_attention_overrideable_backward.default",
            "prims.convert_element_type.default",
            "prims.rev.default",
        ),
        0,
    ),
    aten.full.default: 1,
    aten.full_like.default: 1,
    aten.copy.default: 1,  # into the first operand, of which nothing is left
}


def find_power(step: Step, result: Results) -> tuple[int, Node | None] | Refused:
    """The power of B before the result of an op, and the node where it came in.

    Args:
        step: the op.
        result: what the op's transfer rule says, in which powers are not counted yet.
    """
    powers = {x: p for x in _operands(step) if (p := _power_of(step, x)) != 0}
    if NO_MONOMIAL in powers.values():
        return mixes(step.node, NO_POWER)
    own = -1 if step.node.target in MEANS and _sums_samples(step, result) else 0
    power = _combine(step, powers) if powers else 0
    if power is None or (power and _rounds(step, powers)):
        return mixes(step.node, NO_POWER)
    came_in = next((at for x in powers if (at := _scaled_at(step, x)) is not None), step.node)
    return (power + own, came_in) if power + own else (0, None)


def _combine(step: Step, powers: dict[Node, int]) -> int | None:
    """The power of the result; None if the op does not scale with its operands."""
    target: Any = step.node.target
    if target in PRODUCTS:
        product = sum(powers.get(x, 0) for x in step.args[:2] if isinstance(x, Node))
        bias = step.args[2] if target is aten.convolution.default else None
        return product if bias is None or powers.get(bias, 0) == product else None
    if target in QUOTIENTS:
        over, under = step.args[:2]
        return powers.get(over, 0) - (powers.get(under, 0) if isinstance(under, Node) else 0)
    if target in ADDED:
        positions = [x for i in ADDED[target] for x in tree_leaves(step.args[i]) if not is_zero(x)]
        added = {powers.get(x, 0) if isinstance(x, Node) else 0 for x in positions}
        return added.pop() if len(added) == 1 and all(x in positions for x in powers) else None
    if target in LINEAR:
        first = step.args[LINEAR[target]]
        return powers[first] if list(powers) == [first] else None
    return None


def _rounds(step: Step, powers: dict[Node, int]) -> bool:
    """Whether an op makes whole numbers of real ones that are scaled, which no power undoes."""
    return not _is_real(step.node) and any(_is_real(x) for x in powers)


def _is_real(node: Node) -> bool:
    return any(
        isinstance(x, torch.SymFloat) or (isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()))
        for x in tree_leaves(node.meta["val"])
    )


def _operands(step: Step) -> list[Node]:
    """Everything that an op takes as a value, sizes too where they are no shape."""
    takes = LINEAR.get(step.node.target)
    leaves = [x for x in tree_leaves((step.args, step.node.kwargs)) if isinstance(x, Node)]
    values = [x for x in leaves if not _is_size(x)]
    if takes is not None:
        return [x for x in leaves if x is step.args[takes] or (x in values and takes == 0)]
    pointwise = torch.Tag.pointwise in getattr(step.node.target, "tags", ())
    return leaves if pointwise else values


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat))


def power_of_number(node: Node, batch: sympy.Symbol) -> int:
    """The power of B in a number that the graph computes from sizes; 0 if it computes none."""
    value = node.meta.get("val")
    symbolic = isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
    return _degree(value.node.expr, batch) if symbolic else 0  # type: ignore[union-attr]


def _power_of(step: Step, operand: Node) -> int:
    if isinstance(operand.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return power_of_number(operand, step.batch)
    return getattr(step.known[operand], "power", 0)


def _scaled_at(step: Step, operand: Node) -> Node | None:
    return getattr(step.known[operand], "scaled_at", None)


def _sums_samples(step: Step, result: Results) -> bool:
    return isinstance(result, SummedOverSamples) and result.origin is step.node


# A size that is no monomial in B, such as B + 1. It is no power that could be added up or cancel.
NO_MONOMIAL = 1 << 20
NO_POWER = "uses the number of samples in the batch as a value"


def _degree(expression: sympy.Expr, batch: sympy.Symbol) -> int:
    """k if the expression is B^k times something without B."""
    if not isinstance(expression, sympy.Expr):  # a condition
        return NO_MONOMIAL if batch in expression.free_symbols else 0
    plain = expression.replace(
        lambda e: e.func.__name__ in ("IntTrueDiv", "FloatTrueDiv"), lambda e: e.args[0] / e.args[1]
    ).replace(lambda e: e.func.__name__ == "ToFloat", lambda e: e.args[0])
    if batch not in plain.free_symbols:
        return 0
    for k in (1, -1, 2, -2):
        if batch not in sympy.cancel(plain / batch**k).free_symbols:
            return k
    return NO_MONOMIAL
