"""Transfer rules of ops that show the same elements in another shape or order, or more than once."""

from dataclasses import replace

import sympy
import torch

from dpgraph.provenance.lattice import (
    PerSample,
    Provenance,
    SamplePosition,
    Shared,
    SummedOverSamples,
)
from dpgraph.provenance.registry import Step, transfer

__all__ = ["axis_of", "moved", "quotient", "rank_of"]

aten = torch.ops.aten


def moved(step: Step, provenance: Provenance, axis: int | None, why: str) -> Provenance:
    """The same provenance on another axis of the result; None if the samples did not stay on one axis."""
    if isinstance(provenance, (Shared, SummedOverSamples)):
        return provenance
    if axis is None:
        return step.mixed(why)
    assert isinstance(provenance, (PerSample, SamplePosition))
    return provenance.moved_to(axis)


def axis_of(provenance: Provenance) -> int:
    """The axis that runs over the samples; 0 where none does."""
    return provenance.axis if isinstance(provenance, (PerSample, SamplePosition)) else 0


def rank_of(step: Step) -> int:
    """How many axes the first operand has."""
    return len(step.shape(step.args[0]))


@transfer(aten.alias.default, aten._conj.default)
def same(step: Step) -> Provenance:
    """The value itself, or its complex conjugate, which is lazy and so a view of it."""
    return step.of(step.args[0])


@transfer(aten.view_as_real.default, aten.view_as_complex.default)
def parts(step: Step) -> Provenance:
    """Complex numbers as pairs along a new last axis, and back."""
    return step.of(step.args[0])


@transfer(aten.view.default)
def view(step: Step) -> Provenance:
    """The samples stay on one axis if, in row-major order, what stands before and after them factorises."""
    found = step.of(step.args[0])
    if isinstance(found, (Shared, SummedOverSamples)):
        return found
    old, new = step.shape(step.args[0]), step.out_shape
    if isinstance(found, PerSample) and found.exchangeable and (regrouped := _regrouped(step, found)) is not None:
        return regrouped
    assert isinstance(found, (PerSample, SamplePosition))
    before = sympy.Mul(*old[: found.axis]) * found.outer
    for axis, size in enumerate(new):
        new_outer = quotient(before, sympy.Mul(*new[:axis]))
        new_inner = None if new_outer is None else quotient(size, new_outer * step.batch)
        if new_outer is None or new_inner is None:
            continue
        if isinstance(found, SamplePosition):
            return replace(found, axis=axis, outer=new_outer, inner=new_inner)
        return PerSample(axis, new_outer, new_inner)
    return step.mixed("reshapes the batch so that one axis holds parts of several samples")


def _regrouped(step: Step, found: PerSample) -> PerSample | None:
    """Exchangeable rows as several axes: they may belong to the samples in any order. None if other axes join them."""
    old, new = step.shape(step.args[0]), step.out_shape
    before, rows = sympy.Mul(*old[: found.axis]), old[found.axis]
    for axis, size in enumerate(new):
        inner = quotient(size, step.batch)
        starts = [i for i in range(axis + 1) if sympy.expand(sympy.Mul(*new[:i]) - before) == 0]
        ends = [
            j for i in starts for j in range(axis + 1, len(new) + 1) if sympy.expand(sympy.Mul(*new[i:j]) - rows) == 0
        ]
        if inner is not None and ends:
            return PerSample(axis, inner=inner, exchangeable=True)
    return None


def quotient(numerator: sympy.Expr, denominator: sympy.Expr) -> sympy.Expr | None:
    """numerator / denominator if that is a whole number for all sizes, else None."""
    if denominator == 0:
        return None
    if numerator.is_Integer and denominator.is_Integer:
        return numerator / denominator if numerator % denominator == 0 else None
    quotient = sympy.cancel(numerator / denominator)
    top, bottom = sympy.fraction(quotient)
    return quotient if bottom == 1 and top != 0 else None


@transfer(aten.permute.default)
def permute(step: Step) -> Provenance:
    """Axis i of the result is axis dims[i] of the operand."""
    found = step.of(step.args[0])
    dims = [d % rank_of(step) for d in step.args[1]]
    return moved(step, found, dims.index(axis_of(found)) if dims else None, "permutes it")


@transfer(aten.unsqueeze.default)
def unsqueeze(step: Step) -> Provenance:
    """A new axis of size 1."""
    found = step.of(step.args[0])
    dim = step.args[1] % (rank_of(step) + 1)
    return moved(step, found, axis_of(found) + (dim <= axis_of(found)), "unsqueezes it")


@transfer(aten.squeeze.default, aten.squeeze.dims, aten.squeeze.dim)
def squeeze(step: Step) -> Provenance:
    """Axes of size 1 go; the axis of the samples has no size 1."""
    found = step.of(step.args[0])
    shape = step.shape(step.args[0])
    dims = step.arg(1, "dim", list(range(len(shape))))
    gone = {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)} if shape else set()
    return moved(step, found, axis_of(found) - sum(shape[d] == 1 and d < axis_of(found) for d in gone), "squeezes it")


@transfer(aten.expand.default)
def expand(step: Step) -> Provenance:
    """New leading axes, or axes of size 1 repeated."""
    found = step.of(step.args[0])
    return moved(step, found, axis_of(found) + len(step.out_shape) - rank_of(step), "expands it")


@transfer(aten.repeat.default)
def repeat(step: Step) -> Provenance:
    """Repeating the axis of the samples adds an outer factor."""
    found = step.of(step.args[0])
    repeats = step.args[1]
    shift = len(repeats) - rank_of(step)
    result = moved(step, found, axis_of(found) + shift, "repeats it")
    times = repeats[axis_of(found) + shift]
    if isinstance(result, PerSample) and times != 1:
        return PerSample(result.axis, result.outer * step.size(times), result.inner)
    return result if times == 1 or not isinstance(result, SamplePosition) else step.mixed("repeats it")


@transfer(torch.ops.prims.rev.default)
def flip(step: Step) -> Provenance:
    """Reversal of some axes."""
    found = step.of(step.args[0])
    dims = {d % rank_of(step) for d in step.args[1]}
    if isinstance(found, (Shared, SummedOverSamples)) or axis_of(found) not in dims:
        return found
    return step.mixed("reverses the order of the samples")
