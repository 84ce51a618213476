"""Spell ops of a joint graph in the one way that the analysis knows."""

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Graph, Node

__all__ = ["canonicalise"]

aten = torch.ops.aten


def canonicalise(graph: Graph) -> None:
    """Spell, in place, an operator that has several names or forms in one of them.

    Decompositions leave `as_strided` behind that only reshapes a contiguous tensor (in the backward of GroupNorm, for
    one), and `as_strided_scatter` that replaces all of one: that is a `view`. Other strides stay as they are.
    """
    for node in graph.find_nodes(op="call_function", target=aten.true_divide.Tensor):
        node.target = aten.div.Tensor
    for node in graph.find_nodes(op="call_function", target=aten.as_strided.default):
        if _only_reshapes(node):
            node.target = aten.view.default
            node.args = node.args[:2]
            node.kwargs = {}
    for node in graph.find_nodes(op="call_function", target=aten.as_strided_scatter.default):
        if _replaces_all(node):
            node.target = aten.view.default
            node.args = (node.args[1], [-1])
            node.kwargs = {}


def _only_reshapes(node: Node) -> bool:
    operand = node.args[0]
    assert isinstance(operand, Node)
    before, after = operand.meta["val"], node.meta["val"]
    same_start = node.args[3:] in ((), (None,), (0,)) and before.storage_offset() == 0
    return same_start and _is_contiguous(before) and _is_contiguous(after) and _numel(before) == _numel(after)


def _replaces_all(node: Node) -> bool:
    """Whether every element of a flat tensor is replaced, in order."""
    whole, part, sizes, strides, *start = node.args
    assert isinstance(whole, Node) and isinstance(part, Node)
    before, source = whole.meta["val"], part.meta["val"]
    in_order = _in_order(_exact(_values(sizes)), _exact(_values(strides)))
    return before.ndim == 1 and start in ([], [None], [0]) and in_order and _numel(before) == _numel(source)


def _values(sizes: Any) -> list[Any]:
    return [s.meta["val"] if isinstance(s, Node) else s for s in sizes]


def _is_contiguous(value: Tensor) -> bool:
    """Whether a tensor lies in memory in the order of its indices, for all values of symbolic sizes."""
    return _in_order(_exact(value.shape), _exact(value.stride()))


def _in_order(sizes: list[sympy.Expr], strides: list[sympy.Expr]) -> bool:
    step: sympy.Expr = sympy.Integer(1)
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step = step * size
    return True


def _numel(value: Tensor) -> sympy.Expr:
    return sympy.Mul(*_exact(value.shape))


def _exact(sizes: Sequence[Any]) -> list[sympy.Expr]:
    return [s.node.expr if isinstance(s, torch.SymInt) else sympy.Integer(s) for s in sizes]
