"""The first samples of a batch, as inputs that a compiled graph accepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from dpgraph.capture.joint import Input, Parameter, Sample
from dpgraph.torch_compat import ShapeEnv

__all__ = ["Captured", "copy_memory", "first_samples", "zeros_like"]

SMALLEST = 2
# A graph whose guards hold for larger batches alone is compared on all samples.
LARGEST = 64


@dataclass(frozen=True, slots=True)
class Captured:
    """What the tracer knows of the inputs of the captured graph.

    Attributes:
        names: of the inputs.
        roles: what they are.
        fakes: them, with symbols for sizes.
        probe: position of the probe.
        batch: the symbol B.
        env: what guards say of sizes.
    """

    names: tuple[str, ...]
    roles: tuple[Input, ...]
    fakes: tuple[Any, ...]
    probe: int
    batch: sympy.Symbol
    env: ShapeEnv


def first_samples(captured: Captured, inputs: Sequence[Any], *, every: bool) -> tuple[list[Any], int]:
    """Inputs with as few samples as the graph's guards allow, two if possible, and how many that are.

    Sizes that follow from the batch size change with it, and strides are what they would be for a batch of that size.
    Nothing is copied that need not be: what is returned may share memory with the inputs.

    Args:
        captured: what is known of the inputs.
        inputs: those of a call.
        every: keep all samples.
    """
    num_rows = int(inputs[captured.probe].shape[0])
    values = _known_sizes(captured, inputs)
    for rows in () if every else range(SMALLEST, min(num_rows, LARGEST + 1)):
        sizes = {**values, captured.batch: sympy.Integer(rows)}
        if _guards_hold(captured, sizes):
            shrunk = [
                _shrink(captured, sizes, *of, rows) for of in zip(inputs, captured.fakes, captured.roles, strict=True)
            ]
            return (list(inputs), num_rows) if any(x is None for x in shrunk) else (shrunk, rows)
    return list(inputs), num_rows


def copy_memory(x: Tensor) -> Tensor:
    """A copy with the very strides, gaps and overlaps of `x`."""
    if x.numel() == 0:
        return x.detach().clone()
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    memory = x.detach().as_strided((span,), (1,)).clone()
    return memory.as_strided(x.shape, x.stride(), 0)


def zeros_like(captured: Captured, inputs: Sequence[Any], fake: Tensor) -> Tensor:
    """Zeros of the size that a fake value has for these inputs."""
    sizes = _known_sizes(captured, inputs)
    shape = [int(_expression(captured, size).subs(sizes)) for size in fake.shape]
    return torch.zeros(shape, dtype=fake.dtype, device=fake.device)


def _known_sizes(captured: Captured, inputs: Sequence[Any]) -> dict[sympy.Symbol, sympy.Integer]:
    """Values of the symbols that are sizes of inputs, or inputs."""
    known: dict[sympy.Symbol, sympy.Integer] = {}
    for fake, x in zip(captured.fakes, inputs, strict=True):
        both = isinstance(x, Tensor) and isinstance(fake, Tensor)
        pairs = zip(fake.shape, x.shape, strict=True) if both else [(fake, x)]
        for size, value in pairs:
            if isinstance(size, torch.SymInt) and isinstance(_expression(captured, size), sympy.Symbol):
                known[_expression(captured, size)] = sympy.Integer(int(value))
    return known


def _expression(captured: Captured, size: Any) -> sympy.Expr:
    return captured.env.replace(size.node.expr) if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _guards_hold(captured: Captured, sizes: Mapping[sympy.Symbol, sympy.Integer]) -> bool:
    """Whether every guard on the batch size holds; one that cannot be decided does not."""
    for guard in captured.env.guards:
        condition = captured.env.replace(guard.expr)
        if captured.batch in condition.free_symbols and condition.subs(sizes) != sympy.true:
            return False
    return True


def _shrink(
    captured: Captured, sizes: Mapping[sympy.Symbol, sympy.Integer], x: Any, fake: Any, role: Input, rows: int
) -> Any:
    """An input for the batch of `rows` samples; None if there is no telling what it would be."""
    if isinstance(fake, torch.SymInt):
        value = _expression(captured, fake).subs(sizes)
        return int(value) if value.is_Integer else None
    if not isinstance(x, Tensor) or isinstance(role, Parameter):
        return x
    if not isinstance(fake, Tensor):
        return None
    wanted = [_expression(captured, s).subs(sizes) for s in (*fake.shape, *fake.stride())]
    if not all(s.is_Integer for s in wanted):
        return None
    shape, stride = tuple(map(int, wanted[: x.ndim])), tuple(map(int, wanted[x.ndim :]))
    cut = x.detach().narrow(role.axis, 0, rows) if isinstance(role, Sample) else x.detach()
    if cut.shape != shape:
        return None
    if cut.stride() != stride:
        if 0 in stride:
            return None
        cut = torch.empty_strided(shape, stride, dtype=x.dtype, device=x.device).copy_(cut)
    return cut.requires_grad_(x.requires_grad)
