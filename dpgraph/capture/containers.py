"""The leaves of what a user passes or returns, through containers of any kind.

PyTorch's pytrees know tuples, lists, dicts, named tuples and whatever was registered. Batches also come as dataclasses,
as mappings of a library's own (`UserDict`, and with it the `BatchEncoding` of transformers) and as plain objects with
attributes: a tensor in one of these is an argument like any other.
"""

import copy
from collections.abc import Callable, Iterator
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.torch_compat import tree_leaves, tree_map

__all__ = ["Leaf", "find_leaves", "map_leaves"]


class Leaf:
    """What stands in the place of a leaf, and is one though it has attributes."""

    __slots__ = ()


# They have attributes, but are no containers of a batch.
CLOSED = (
    Leaf,
    Tensor,
    nn.Module,
    Enum,
    type,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    ModuleType,
    torch.Generator,
)


def find_leaves(tree: Any) -> list[Any]:
    """All leaves, in the order of `map_leaves`."""
    return list(_leaves(tree, ()))


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with each leaf replaced.

    An object with attributes is copied only if one of its leaves was replaced by another, and the original is left as
    it is. Where an object is reached again through itself, it is left out.
    """
    return _mapped(function, tree, ())


def _leaves(tree: Any, within: tuple[Any, ...]) -> Iterator[Any]:
    for part in tree_leaves(tree, is_leaf=_is_size):
        if not _is_container(part):
            yield part
        elif not any(part is outer for outer in within):
            for _, value in _items(part):
                yield from _leaves(value, (*within, part))


def _mapped(function: Callable[[Any], Any], tree: Any, within: tuple[Any, ...]) -> Any:
    def replace(part: Any) -> Any:
        if not _is_container(part):
            return function(part)
        if any(part is outer for outer in within):
            return part
        new = [(place, value, _mapped(function, value, (*within, part))) for place, value in _items(part)]
        return _with(part, [(place, after) for place, before, after in new if not _same(before, after)])

    return tree_map(replace, tree, is_leaf=_is_size)


def _with(container: Any, changes: list[tuple[tuple[bool, Any], Any]]) -> Any:
    """A copy of a container with other items; itself if none are."""
    if not changes:
        return container
    twin = copy.copy(container)
    for (is_attribute, key), value in changes:
        if is_attribute:
            object.__setattr__(twin, key, value)
        else:
            twin[key] = value
    return twin


def _is_size(x: Any) -> bool:
    """A shape, of which a pytree would make a tuple."""
    return isinstance(x, torch.Size)


def _is_container(x: Any) -> bool:
    if isinstance(x, CLOSED):
        return False
    return isinstance(x, (dict, list)) or hasattr(x, "__dict__") or bool(list(_slots(x)))


def _items(container: Any) -> Iterator[tuple[tuple[bool, Any], Any]]:
    """(whether it is an attribute, its name or key) and value of everything that a container holds."""
    if isinstance(container, dict):
        yield from (((False, key), value) for key, value in container.items())
    elif isinstance(container, list):
        yield from (((False, i), value) for i, value in enumerate(container))
    yield from (((True, name), value) for name, value in getattr(container, "__dict__", {}).items())
    yield from (((True, name), getattr(container, name)) for name in _slots(container) if hasattr(container, name))


def _slots(x: Any) -> Iterator[str]:
    for owner in type(x).__mro__:
        names = vars(owner).get("__slots__", ())
        names = (names,) if isinstance(names, str) else names
        yield from (name for name in names if not name.startswith("__"))


def _same(before: Any, after: Any) -> bool:
    """Whether a mapped part holds the very leaves that it held before."""
    if before is after:
        return True
    leaves, others = find_leaves(before), find_leaves(after)
    return len(leaves) == len(others) and all(a is b for a, b in zip(leaves, others, strict=True))
