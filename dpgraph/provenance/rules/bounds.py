"""What is known of whole numbers by the ops that made them: that none is negative, and what they stay below.

Whatever the data are: a place that `argmax` found along an axis of 5 is one of 0 to 4, and so is a number that was
clamped to them. Nothing here depends on which sample a number belongs to.
"""

import operator
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.registry import Step
from dpgraph.torch_compat import find_operators

__all__ = ["bound_of"]

aten = torch.ops.aten
prims = torch.ops.prims

# The numbers of the first operand, some of them or all.
SAME_NUMBERS = set(
    find_operators(
        "aten.alias.default",
        "aten.clone.default",
        "aten.expand.default",
        "aten.permute.default",
        "aten.repeat.default",
        "aten.select.int",
        "aten.slice.Tensor",
        "aten.squeeze.default",
        "aten.squeeze.dim",
        "aten.squeeze.dims",
        "aten.unsqueeze.default",
        "aten.view.default",
    )
)
# Ops whose second result, or only one, are places along an axis (operand, ..., dim), with the position of `dim`.
PLACES: dict[Any, int] = {
    aten.argmax.default: 1,
    aten.argmin.default: 1,
    aten.max.dim: 1,
    aten.min.dim: 1,
    aten.sort.default: 1,
    aten.topk.default: 2,
}
LAST: dict[Any, int] = {aten.sort.default: -1, aten.topk.default: -1}
# How far back numbers are followed.
DEPTH = 64


def bound_of(step: Step, x: object) -> sympy.Expr | None:
    """m if every number of x is a whole one with 0 <= number < m; None if that is not known."""
    below = _below(step, x, DEPTH)
    # clamped to [0, -1], every number is -1
    return below if below is not None and below.is_positive and _at_least_zero(step, x, DEPTH) else None


def _below(step: Step, x: object, depth: int) -> sympy.Expr | None:
    if _is_number(x):
        return step.size(x) + 1
    if not isinstance(x, Node) or depth == 0 or not _holds_whole_numbers(x):
        return None
    if (inner := _same_numbers(x)) is not None:
        return _below(step, inner, depth - 1)
    match x.target:
        case prims.iota.default:
            plain = (x.kwargs.get("start", 0), x.kwargs.get("step", 1)) == (0, 1)
            return step.size(x.args[0]) if plain else None
        case aten.full.default:
            return step.size(x.args[1]) + 1 if _is_number(x.args[1]) else None
        case aten.clamp.default | aten.clamp_max.default:
            highest = x.args[2] if x.target is aten.clamp.default and len(x.args) > 2 else x.args[-1]
            is_upper = x.target is aten.clamp_max.default or len(x.args) > 2
            return step.size(highest) + 1 if is_upper and _is_number(highest) else None
        case aten.clamp_min.default:
            # of max(x, 0) with x < m it is known that it is below m if m is 1 at least
            known = _below(step, x.args[0], depth - 1) if x.args[1] == 0 else None
            return known if known is not None and known.is_positive else None
        case aten.remainder.Scalar:
            return step.size(x.args[1]) if _is_number(x.args[1]) and bool(step.size(x.args[1]).is_positive) else None
        case _:
            return _num_places(step, x)


def _at_least_zero(step: Step, x: object, depth: int) -> bool:
    if _is_number(x):
        return bool(step.size(x).is_nonnegative)
    if not isinstance(x, Node) or depth == 0:
        return False
    if (inner := _same_numbers(x)) is not None:
        return _at_least_zero(step, inner, depth - 1)
    match x.target:
        case aten.clamp.default | aten.clamp_min.default:
            return _is_number(x.args[1]) and bool(step.size(x.args[1]).is_nonnegative)
        case aten.clamp_max.default:
            is_positive = _is_number(x.args[1]) and bool(step.size(x.args[1]).is_nonnegative)
            return is_positive and _at_least_zero(step, x.args[0], depth - 1)
        case aten.full.default:
            return _is_number(x.args[1]) and bool(step.size(x.args[1]).is_nonnegative)
        case _:
            return _below(step, x, depth) is not None  # counts, remainders and places along an axis


def _same_numbers(x: Node) -> object:
    if x.target in SAME_NUMBERS:
        return x.args[0]
    casts = x.target is prims.convert_element_type.default and x.args[1] is torch.int64
    return x.args[0] if casts else None


def _num_places(step: Step, x: Node) -> sympy.Expr | None:
    """The length of the axis along which x holds places."""
    if x.target is operator.getitem:
        source, which = x.args
        if which != 1 or not isinstance(source, Node) or source.target not in PLACES:
            return None
        x = source
    at = PLACES.get(x.target)
    if at is None:
        return None
    operand = x.args[0]
    assert isinstance(operand, Node)
    dim = x.args[at] if len(x.args) > at else LAST.get(x.target)
    shape = step.shape(operand)
    return shape[dim] if isinstance(dim, int) and shape else None


def _is_number(x: object) -> bool:
    """Whether x is a whole number that all places share: a constant, or a size."""
    if isinstance(x, Node):
        return isinstance(x.meta.get("val"), torch.SymInt)
    return isinstance(x, int) and not isinstance(x, bool)


def _holds_whole_numbers(x: Node) -> bool:
    value = x.meta.get("val")
    return isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32)
