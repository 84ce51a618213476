"""Transfer rules of ops that take parts of a value, or put values together, without computing with them."""

from dataclasses import replace

import sympy
import torch

from dpgraph.provenance.lattice import PerSample, Provenance, SamplePosition, Shared, SummedOverSamples, meet
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.provenance.rules.pointwise import is_zero
from dpgraph.provenance.rules.views import axis_of, moved, quotient, rank_of

aten = torch.ops.aten


@transfer(aten.slice.Tensor)
def slice_(step: Step) -> Provenance:
    """A cut along the samples' axis is sound if it takes whole blocks of B * inner."""
    found = step.of(step.args[0])
    dim = step.arg(1, "dim", 0) % rank_of(step)
    if isinstance(found, (Shared, SummedOverSamples)) or dim != axis_of(found):
        return found
    size = step.shape(step.args[0])[dim]
    if step.out_shape[dim] == size:
        return found
    if _is_any_row(found) and step.batch not in step.out_shape[dim].free_symbols:
        return Shared()
    if isinstance(found, PerSample):
        start, stride = step.size(step.arg(2, "start", 0) or 0), step.arg(4, "step", 1)
        cut = _block(step, found, start, step.out_shape[dim]) if stride == 1 else _every(found, start, stride)
        if cut is not None:
            return cut
    return step.mixed("takes only some of the samples, which shifts them against each other")


def _block(step: Step, found: PerSample, start: sympy.Expr, size: sympy.Expr) -> PerSample | None:
    """What a cut of `size` places from `start` on holds, if it is of whole blocks of B * inner places."""
    block = step.batch * found.inner
    outer = quotient(size, block)
    if outer is None or (start != 0 and quotient(start, block) is None):
        return None
    return PerSample(found.axis, outer, found.inner)


def _every(found: PerSample, start: sympy.Expr, stride: int) -> PerSample | None:
    """Every `stride`-th place from one of the first on: as many of each sample, if a sample's places are a multiple."""
    inner = quotient(found.inner, sympy.Integer(stride))
    inside = start.is_Integer and 0 <= start < stride
    return PerSample(found.axis, found.outer, inner) if inner is not None and inside else None


@transfer(aten.select.int)
def select(step: Step) -> Provenance:
    """One index of one axis; that axis goes."""
    found = step.of(step.args[0])
    dim = step.args[1] % rank_of(step)
    if dim == axis_of(found) and _is_any_row(found):
        return Shared()
    axis = None if dim == axis_of(found) else axis_of(found) - (dim < axis_of(found))
    return moved(step, found, axis, "picks one sample for all")


def _is_any_row(found: Provenance) -> bool:
    """Whether a row of the batch belongs to no sample: all are equal, or drawn from one distribution."""
    return isinstance(found, PerSample) and found.exchangeable


@transfer(aten.unbind.int)
def unbind(step: Step) -> Provenance:
    """All indices of one axis, which goes."""
    found = step.of(step.args[0])
    dim = step.arg(1, "dim", 0) % rank_of(step)
    axis = None if dim == axis_of(found) else axis_of(found) - (dim < axis_of(found))
    return moved(step, found, axis, "splits the batch into parts")


@transfer(aten.split.Tensor, aten.split_with_sizes.default)
def split(step: Step) -> Results:
    """Several cuts along one axis, one behind the other."""
    found = step.of(step.args[0])
    dim = step.arg(2, "dim", 0) % rank_of(step)
    parts = step.node.meta["val"]
    if isinstance(found, (Shared, SummedOverSamples)) or dim != axis_of(found) or len(parts) == 1:
        return found
    start, cuts = sympy.Integer(0), []
    for part in parts:
        size = step.size(part.shape[dim])
        cuts.append(_block(step, found, start, size) if isinstance(found, PerSample) else None)
        start = sympy.expand(start + size)
    whole = [cut for cut in cuts if cut is not None]
    return tuple(whole) if len(whole) == len(cuts) else step.mixed("splits the batch into parts")


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
    if not agreed:
        return step.mixed("joins the places of samples in the batch")
    if dim != agreed[0].axis:
        return step.agreed(parts)
    inner = {p.inner for p in agreed if not p.exchangeable} or {agreed[0].inner}
    if len(agreed) == len(found) and len(inner) == 1 and all(p.axis == dim for p in agreed):
        blocks = [quotient(step.shape(x)[dim], step.batch * min(inner)) for x in parts]
        whole = [n for n in blocks if n is not None]
        if len(whole) == len(parts):
            return PerSample(dim, sympy.Add(*whole), min(inner))
    if len(agreed) == len(found):
        return step.unshown(
            "joins values in which the samples follow one another in different ways",
            "join them along another axis, with as many of each sample (x[:, None] beside [B, T, d]), or compute on "
            "them one after the other",
        )
    return step.mixed("joins samples with values that belong to none, which shifts them")


@transfer(aten.constant_pad_nd.default)
def pad(step: Step) -> Provenance:
    """Padding along the samples' axis shifts them."""
    found = step.of(step.args[0])
    widths = step.args[1]
    padded = {rank_of(step) - 1 - i // 2 for i, width in enumerate(widths) if width != 0}
    if isinstance(found, SummedOverSamples):
        return found if step.arg(2, "value", 0) == 0 else step.mixed("pads it with a constant")
    if isinstance(found, SamplePosition):
        return step.mixed("puts other numbers beside the position of a sample in the batch")
    return found if axis_of(found) not in padded else step.mixed("pads the batch, which shifts the samples")


@transfer(aten.diagonal.default)
def diagonal(step: Step) -> Provenance:
    """(operand, offset, dim1, dim2): both axes go, the diagonal is a new last one."""
    found, rank = step.of(step.args[0]), rank_of(step)
    gone = {step.arg(2, "dim1", 0) % rank, step.arg(3, "dim2", 1) % rank}
    axis = None if axis_of(found) in gone else axis_of(found) - sum(d < axis_of(found) for d in gone)
    return moved(step, found, axis, "takes a diagonal through the samples")


@transfer(aten.diagonal_scatter.default)
def diagonal_scatter(step: Step) -> Provenance:
    """The diagonal of the first operand is replaced by the second."""
    whole, part = step.args[:2]
    gone = {step.arg(3, "dim1", 0) % rank_of(step), step.arg(4, "dim2", 1) % rank_of(step)}
    found, piece = step.of(whole), step.of(part)
    if isinstance(piece, SummedOverSamples):
        return piece if is_zero(whole) else step.mixed("puts it into a constant")
    kept = [d for d in range(rank_of(step)) if d not in gone]
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
    dim = step.arg(2, "dim", 0) % rank_of(step)
    found, piece = step.of(whole), step.of(part)
    if isinstance(piece, SummedOverSamples) and isinstance(found, Shared):
        return piece if is_zero(whole) else step.mixed("puts it into a constant")
    if isinstance(piece, PerSample):
        axis = piece.axis + (selects and dim <= piece.axis)
        piece = piece.moved_to(axis)
        if dim == axis and (selects or step.out_shape[dim] != step.shape(part)[dim]):
            written = None if selects else _written(step, found, piece)
            return written or step.mixed("writes samples into other places of the batch")
    if isinstance(found, PerSample) and dim == found.axis and not isinstance(piece, PerSample):
        return step.mixed("overwrites some of the samples")
    return _replaced(step, found, piece)


def _written(step: Step, found: Provenance, piece: PerSample) -> PerSample | None:
    """A value of which a part along the samples' axis, cut as in `slice_`, is replaced by `piece`."""
    part, start, stride = step.args[1], step.size(step.arg(3, "start", 0) or 0), step.arg(5, "step", 1)
    if not isinstance(found, PerSample) or found.axis != piece.axis:
        return None
    # rows that belong to no sample are those of whichever samples the part makes them
    whole = PerSample(piece.axis, inner=piece.inner * stride) if found.exchangeable else found
    outer = quotient(step.out_shape[piece.axis], step.batch * whole.inner)
    whole = replace(whole, outer=outer) if outer is not None else whole
    size = step.shape(part)[piece.axis]
    cut = _block(step, whole, start, size) if stride == 1 else _every(whole, start, stride)
    same = cut is not None and outer is not None and (cut.outer, cut.inner) == (piece.outer, piece.inner)
    return whole if same else None


def _replaced(step: Step, found: Provenance, piece: Provenance) -> Provenance:
    """Provenance of one value of which a part is another one, with the samples of both on axes of the whole."""
    if isinstance(found, PerSample) and isinstance(piece, PerSample):
        return meet(found, piece) or step.mixed("pairs values of different samples")
    if isinstance(found, (Shared, PerSample)) and isinstance(piece, (Shared, PerSample)):
        return piece if isinstance(piece, PerSample) else found
    return step.mixed("writes it into another value")


@transfer(aten.unfold.default)
def unfold(step: Step) -> Provenance:
    """Windows along one axis, as a new last axis."""
    found = step.of(step.args[0])
    dim = step.args[1] % max(rank_of(step), 1)
    if isinstance(found, (Shared, SummedOverSamples)) or axis_of(found) != dim:
        return found
    return step.mixed("slides a window over the samples")
