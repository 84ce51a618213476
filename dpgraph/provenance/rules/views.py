"""Transfer rules of ops that move, cut or join elements without computing with them."""

import sympy
import torch

from dpgraph.provenance.lattice import (
    ONE,
    PerSample,
    Provenance,
    SamplePosition,
    Shared,
    SummedOverSamples,
    meet,
)
from dpgraph.provenance.registry import Results, Step, size_of, transfer
from dpgraph.provenance.rules.pointwise import is_zero

aten = torch.ops.aten


def _moved(step: Step, provenance: Provenance, axis: int | None, why: str) -> Provenance:
    """The same provenance on another axis of the result; None if the samples did not stay on one axis."""
    if isinstance(provenance, (Shared, SummedOverSamples)):
        return provenance
    if axis is None:
        return step.mixed(why)
    if isinstance(provenance, SamplePosition):
        return SamplePosition(axis, provenance.origin)
    assert isinstance(provenance, PerSample)
    return provenance.moved_to(axis)


def _axis(provenance: Provenance) -> int:
    return provenance.axis if isinstance(provenance, (PerSample, SamplePosition)) else 0


def _rank(step: Step) -> int:
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
    before = sympy.Mul(*old[: _axis(found)]) * (found.outer if isinstance(found, PerSample) else ONE)
    for axis, size in enumerate(new):
        new_outer = _quotient(before, sympy.Mul(*new[:axis]))
        new_inner = None if new_outer is None else _quotient(size, new_outer * step.batch)
        if new_outer is None or new_inner is None:
            continue
        if isinstance(found, SamplePosition):
            return SamplePosition(axis, found.origin) if new_outer == new_inner == 1 else step.mixed("reshapes it")
        return PerSample(axis, new_outer, new_inner)
    return step.mixed("reshapes the batch so that one axis holds parts of several samples")


def _regrouped(step: Step, found: PerSample) -> PerSample | None:
    """Exchangeable rows as several axes: they may belong to the samples in any order. None if other axes join them."""
    old, new = step.shape(step.args[0]), step.out_shape
    before, rows = sympy.Mul(*old[: found.axis]), old[found.axis]
    for axis, size in enumerate(new):
        inner = _quotient(size, step.batch)
        starts = [i for i in range(axis + 1) if sympy.expand(sympy.Mul(*new[:i]) - before) == 0]
        ends = [
            j for i in starts for j in range(axis + 1, len(new) + 1) if sympy.expand(sympy.Mul(*new[i:j]) - rows) == 0
        ]
        if inner is not None and ends:
            return PerSample(axis, inner=inner, exchangeable=True)
    return None


def _quotient(numerator: sympy.Expr, denominator: sympy.Expr) -> sympy.Expr | None:
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
    dims = [d % _rank(step) for d in step.args[1]]
    return _moved(step, found, dims.index(_axis(found)) if dims else None, "permutes it")


@transfer(aten.unsqueeze.default)
def unsqueeze(step: Step) -> Provenance:
    """A new axis of size 1."""
    found = step.of(step.args[0])
    dim = step.args[1] % (_rank(step) + 1)
    return _moved(step, found, _axis(found) + (dim <= _axis(found)), "unsqueezes it")


@transfer(aten.squeeze.default, aten.squeeze.dims, aten.squeeze.dim)
def squeeze(step: Step) -> Provenance:
    """Axes of size 1 go; the axis of the samples has no size 1."""
    found = step.of(step.args[0])
    shape = step.shape(step.args[0])
    dims = step.arg(1, "dim", list(range(len(shape))))
    gone = {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)} if shape else set()
    return _moved(step, found, _axis(found) - sum(shape[d] == 1 and d < _axis(found) for d in gone), "squeezes it")


@transfer(aten.expand.default)
def expand(step: Step) -> Provenance:
    """New leading axes, or axes of size 1 repeated."""
    found = step.of(step.args[0])
    return _moved(step, found, _axis(found) + len(step.out_shape) - _rank(step), "expands it")


@transfer(aten.repeat.default)
def repeat(step: Step) -> Provenance:
    """Repeating the axis of the samples adds an outer factor."""
    found = step.of(step.args[0])
    repeats = step.args[1]
    shift = len(repeats) - _rank(step)
    moved = _moved(step, found, _axis(found) + shift, "repeats it")
    times = repeats[_axis(found) + shift]
    if isinstance(moved, PerSample) and times != 1:
        return PerSample(moved.axis, moved.outer * _sym(times), moved.inner)
    return moved if times == 1 or not isinstance(moved, SamplePosition) else step.mixed("repeats it")


def _sym(value: object) -> sympy.Expr:
    return size_of(value.meta["val"] if isinstance(value, torch.fx.Node) else value)


@transfer(aten.slice.Tensor)
def slice_(step: Step) -> Provenance:
    """A cut along the samples' axis is sound if it takes whole blocks of B * inner."""
    found = step.of(step.args[0])
    dim = step.arg(1, "dim", 0) % _rank(step)
    if isinstance(found, (Shared, SummedOverSamples)) or dim != _axis(found):
        return found
    size = step.shape(step.args[0])[dim]
    if step.out_shape[dim] == size:
        return found
    if _is_any_row(found) and step.batch not in step.out_shape[dim].free_symbols:
        return Shared()
    if isinstance(found, PerSample) and step.arg(4, "step", 1) == 1:
        block = step.batch * found.inner
        start = _sym(step.arg(2, "start", 0) or 0)
        if _quotient(start, block) is not None or start == 0:
            outer = _quotient(step.out_shape[dim], block)
            if outer is not None:
                return PerSample(found.axis, outer, found.inner)
    return step.mixed("takes only some of the samples, which shifts them against each other")


@transfer(aten.select.int)
def select(step: Step) -> Provenance:
    """One index of one axis; that axis goes."""
    found = step.of(step.args[0])
    dim = step.args[1] % _rank(step)
    if dim == _axis(found) and _is_any_row(found):
        return Shared()
    axis = None if dim == _axis(found) else _axis(found) - (dim < _axis(found))
    return _moved(step, found, axis, "picks one sample for all")


def _is_any_row(found: Provenance) -> bool:
    """Whether a row of the batch belongs to no sample: all are equal, or drawn from one distribution."""
    return isinstance(found, PerSample) and found.exchangeable


@transfer(aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
def split(step: Step) -> Results:
    """Several cuts along one axis, which `unbind` drops."""
    found = step.of(step.args[0])
    unbinds = step.node.target is aten.unbind.int
    dim = step.arg(1, "dim", 0) if unbinds else step.arg(2, "dim", 0)
    dim %= _rank(step)
    num_parts = len(step.node.meta["val"])
    axis: int | None = _axis(found) - (unbinds and dim < _axis(found))
    if dim == _axis(found):
        axis = None if unbinds or num_parts > 1 else axis
    return (_moved(step, found, axis, "splits the batch into parts"),) * num_parts


@transfer(aten.cat.default)
def cat(step: Step) -> Provenance:
    """Along another axis all must agree; along the samples' own axis the outer factors add up."""
    parts = step.args[0]
    dim = step.arg(1, "dim", 0) % len(step.out_shape)
    found = [step.of(x) for x in parts]
    if all(isinstance(p, (Shared, SummedOverSamples)) for p in found):
        sums = [p for p in found if isinstance(p, SummedOverSamples)]
        shared = [x for x, p in zip(parts, found, strict=True) if isinstance(p, Shared)]
        from_zeros = all(is_zero(x) for x in shared)
        return sums[0] if not shared or from_zeros else step.mixed("joins it with a constant")
    agreed = [p for p in found if isinstance(p, PerSample)]
    if any(isinstance(p, (SummedOverSamples, SamplePosition)) for p in found):
        return step.mixed("joins it with single samples")
    if dim != agreed[0].axis:
        return step.agreed(parts)
    if len(agreed) == len(found) and len({(p.axis, p.inner) for p in agreed}) == 1:
        return PerSample(dim, sum((p.outer for p in agreed), sympy.Integer(0)), agreed[0].inner)
    return step.mixed("joins samples with values that belong to none, which shifts them")


@transfer(aten.constant_pad_nd.default)
def pad(step: Step) -> Provenance:
    """Padding along the samples' axis shifts them."""
    found = step.of(step.args[0])
    widths = step.args[1]
    padded = {_rank(step) - 1 - i // 2 for i, width in enumerate(widths) if width != 0}
    if isinstance(found, SummedOverSamples):
        return found if step.arg(2, "value", 0) == 0 else step.mixed("pads it with a constant")
    return found if _axis(found) not in padded else step.mixed("pads the batch, which shifts the samples")


@transfer(aten.diagonal.default)
def diagonal(step: Step) -> Provenance:
    """(operand, offset, dim1, dim2): both axes go, the diagonal is a new last one."""
    found, rank = step.of(step.args[0]), _rank(step)
    gone = {step.arg(2, "dim1", 0) % rank, step.arg(3, "dim2", 1) % rank}
    axis = None if _axis(found) in gone else _axis(found) - sum(d < _axis(found) for d in gone)
    return _moved(step, found, axis, "takes a diagonal through the samples")


@transfer(aten.diagonal_scatter.default)
def diagonal_scatter(step: Step) -> Provenance:
    """The diagonal of the first operand is replaced by the second."""
    whole, part = step.args[:2]
    gone = {step.arg(3, "dim1", 0) % _rank(step), step.arg(4, "dim2", 1) % _rank(step)}
    found, piece = step.of(whole), step.of(part)
    if isinstance(piece, SummedOverSamples):
        return piece if is_zero(whole) else step.mixed("puts it into a constant")
    kept = [d for d in range(_rank(step)) if d not in gone]
    if isinstance(piece, PerSample):
        if piece.axis >= len(kept):
            return step.mixed("writes samples along a diagonal")
        piece = piece.moved_to(kept[piece.axis])
    if isinstance(found, PerSample) and found.axis in gone:
        return step.mixed("overwrites some of the samples")
    return _replaced(step, found, piece)


@transfer(aten.slice_scatter.default, aten.select_scatter.default)
def scatter_part(step: Step) -> Provenance:
    """A part of the first operand is replaced by the second."""
    selects = step.node.target is aten.select_scatter.default
    whole, part = step.args[:2]
    dim = step.arg(2, "dim", 0) % _rank(step)
    found, piece = step.of(whole), step.of(part)
    if isinstance(piece, SummedOverSamples) and isinstance(found, Shared):
        return piece if is_zero(whole) else step.mixed("puts it into a constant")
    if isinstance(piece, PerSample):
        axis = piece.axis + (selects and dim <= piece.axis)
        if dim == axis and (selects or step.out_shape[dim] != step.shape(part)[dim]):
            return step.mixed("writes samples into other places of the batch")
        piece = piece.moved_to(axis)
    if isinstance(found, PerSample) and dim == found.axis and not isinstance(piece, PerSample):
        return step.mixed("overwrites some of the samples")
    return _replaced(step, found, piece)


def _replaced(step: Step, found: Provenance, piece: Provenance) -> Provenance:
    """Provenance of one value of which a part is another one, with the samples of both on axes of the whole."""
    if isinstance(found, PerSample) and isinstance(piece, PerSample):
        return meet(found, piece) or step.mixed("pairs values of different samples")
    if isinstance(found, (Shared, PerSample)) and isinstance(piece, (Shared, PerSample)):
        return piece if isinstance(piece, PerSample) else found
    return step.mixed("writes it into another value")


@transfer(torch.ops.prims.rev.default)
def flip(step: Step) -> Provenance:
    """Reversal of some axes."""
    found = step.of(step.args[0])
    dims = {d % _rank(step) for d in step.args[1]}
    if isinstance(found, (Shared, SummedOverSamples)) or _axis(found) not in dims:
        return found
    return step.mixed("reverses the order of the samples")


@transfer(aten.unfold.default)
def unfold(step: Step) -> Provenance:
    """Windows along one axis, as a new last axis."""
    found = step.of(step.args[0])
    dim = step.args[1] % max(_rank(step), 1)
    if isinstance(found, (Shared, SummedOverSamples)) or _axis(found) != dim:
        return found
    return step.mixed("slides a window over the samples")
