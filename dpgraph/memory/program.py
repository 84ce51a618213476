"""A forward or a backward as a list of kernels, with what each of them allocates and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor

__all__ = ["Allocation", "Kernel", "Program", "bytes_of"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One thing that is launched.

    Attributes:
        name: what it is called.
        module: the module that it came from; "" is the model itself.
        origins: names of the nodes that it computes.
    """

    name: str
    module: str
    origins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Memory that a kernel's results lie in.

    Attributes:
        size: bytes, in the symbols of the graph.
        module: the module whose values it holds.
        first: position of the kernel before which it is made.
        last: position of the kernel after which it is freed; that of the last kernel of all for what is returned.
    """

    size: sympy.Expr
    module: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Program:
    """A half of a joint graph, ready to be run kernel by kernel.

    Attributes:
        kernels: in the order in which they run.
        allocations: by name.
        inputs: position of the kernel that reads an input last, by the placeholder's name; -1 if none does.
        returned: what the graph returns, in order: the name of the node, or None.
        storage: where a returned node lies, by its name: an allocation or an input.
        overwrites: allocations that take the memory of an input that dies, by name.
    """

    kernels: tuple[Kernel, ...]
    allocations: Mapping[str, Allocation]
    inputs: Mapping[str, int]
    returned: tuple[str | None, ...]
    storage: Mapping[str, str]
    overwrites: Mapping[str, str]


def bytes_of(value: Tensor) -> sympy.Expr:
    """Bytes of the elements that a tensor's strides reach, in the symbols of its sizes."""
    reached: sympy.Expr = sympy.Integer(1)
    for size, stride in zip(value.shape, value.stride(), strict=True):
        if isinstance(size, int) and size == 0:
            return sympy.Integer(0)
        reached = reached + (_expression(size) - 1) * _expression(stride)
    return sympy.expand(reached * value.element_size())


def _expression(size: int | torch.SymInt) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
