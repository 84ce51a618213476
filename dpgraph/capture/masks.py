"""Spell out what is written where a mask is true as a choice between two values, before autograd sees it.

As it is, as many elements are picked and written as the mask is true, of which nothing tells whose they are: that is
data. The choice is made at every place, so that each stays where it is.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

__all__ = ["MASKS", "write_by_mask"]


def write_by_mask(graph: Graph) -> None:
    """Spell `x[mask] = y[mask]`, in place, as a choice between the elements of x and of y."""
    for node in graph.find_nodes(op="call_function", target=operator.setitem):
        x, mask, picked = node.args
        picks = isinstance(picked, Node) and picked.target is operator.getitem and picked.args[1] is mask
        if picks and isinstance(mask, Node) and _is_mask(mask.meta["example_value"]):
            node.target = _copy_where
            node.args = (x, mask, picked.args[0])
            _erase_if_unread(graph, picked)


def _erase_if_unread(graph: Graph, node: Node) -> None:
    """Take out a value of which only the number of elements is looked at, to check that there is one."""
    behind = [node]
    for x in behind:
        if x.target not in CHECKS and x is not node:
            return
        behind += [user for user in x.users if user not in behind]
    for x in reversed(behind):
        graph.erase_node(x)


CHECKS = {torch.ops.aten.sym_size.int, operator.ge, torch.ops.aten._assert_scalar.default}


def _is_mask(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype is torch.bool


def _setitem(x: Any, key: Any, value: Any) -> None:
    """`x[key] = value`, for a mask and a value that is the same at each place of it as such a choice."""
    per_place = isinstance(value, Tensor) and isinstance(x, Tensor) and _is_mask(key) and value.ndim > x.ndim - key.ndim
    if not isinstance(x, Tensor) or not _is_mask(key) or per_place:
        operator.setitem(x, key, value)
    else:
        _copy_where(x, key, value)


def _copy_where(x: Tensor, mask: Tensor, value: Any) -> None:
    """Write `value` where the mask [*lead] of x [*lead, *] is true."""
    x.copy_(torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), value, x))


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """`torch.masked_select`, so that one message says of it and of x[mask] what cannot be seen."""
    x, mask = torch.broadcast_tensors(x, mask)
    return x[mask]


MASKS: dict[Any, Callable[..., Any]] = {
    operator.setitem: _setitem,
    torch.masked_select: _masked_select,
    Tensor.masked_select: _masked_select,
}
