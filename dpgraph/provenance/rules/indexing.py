"""Transfer rules of ops that read or write at indices: embedding, index, gather, and their backward passes."""

from collections.abc import Iterator, Sequence

import torch
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Refused, SamplePosition, Shared, SummedOverSamples, meet
from dpgraph.provenance.registry import Step, transfer
from dpgraph.provenance.rules.pointwise import is_zero
from dpgraph.provenance.rules.positions import may_be_own_rows, own_rows

aten = torch.ops.aten


@transfer(aten.embedding.default)
def embedding(step: Step) -> Provenance:
    """weight [V, d], indices [*]: result [*, d]."""
    weight, indices = step.args[:2]
    if not isinstance(step.of(weight), Shared):
        return step.mixed("looks up a table that depends on samples")
    return step.agreed([indices])


@transfer(aten.embedding_dense_backward.default)
def embedding_dense_backward(step: Step) -> Provenance:
    """grad [*, d] added up at indices [*] of a table."""
    grad, indices = step.args[:2]
    found = step.of(grad)
    if isinstance(found, SummedOverSamples) and isinstance(step.of(indices), Shared):
        return found
    agreed = step.agreed([grad, indices])
    if not isinstance(agreed, PerSample):
        return agreed
    if step.args[4] and not isinstance(step.of(indices), Shared):
        return step.mixed("scales a gradient by how often all samples together use an index")
    if agreed.axis >= len(step.shape(indices)):
        return step.mixed("computes along the samples")
    return SummedOverSamples(step.node)


def _placed(indices: list[Node | None]) -> tuple[int, int]:
    """Where the broadcast axes of the index tensors stand in the result, and how many axes they replace."""
    used = [i for i, x in enumerate(indices) if x is not None]
    adjacent = used == list(range(used[0], used[-1] + 1))
    return (used[0] if adjacent else 0), len(used)


def _result_axes(step: Step, operand: Node, indices: list[Node | None]) -> tuple[int, int, dict[int, int]]:
    """(place, rank) of the broadcast index axes in the result, and where each axis that is not indexed goes."""
    place, num_used = _placed(indices)
    rank = max(len(step.shape(x)) for x in indices if x is not None)
    kept = [d for d in range(len(step.shape(operand))) if d >= len(indices) or indices[d] is None]
    before = [d for d in kept if d < place] if num_used and place else []
    after = [d for d in kept if d not in before]
    goes = {d: i for i, d in enumerate(before)} | {d: place + rank + i for i, d in enumerate(after)}
    return place, rank, goes


def _index_samples(step: Step, operand: Node, indices: list[Node | None]) -> Provenance:
    """Provenance of operand[indices], which is that of the gradient of it too."""
    place, rank, goes = _result_axes(step, operand, indices)
    found = step.of(operand)
    own = found.axis if isinstance(found, PerSample) else None
    samples: list[PerSample] = []
    for dim, index in enumerate(indices):
        if index is None:
            continue
        provenance = step.of(index)
        shift = place + rank - len(step.shape(index))
        if isinstance(provenance, SamplePosition):
            if dim != own or not isinstance(found, PerSample):
                return step.mixed("uses the position of a sample in the batch as data")
            if not own_rows(found, provenance):
                return _foreign_rows(step, found, provenance)
            samples.append(provenance.layout.moved_to(provenance.axis + shift))
        elif dim == own:
            return step.mixed("picks samples out of the batch")
        elif isinstance(provenance, PerSample):
            samples.append(provenance.moved_to(provenance.axis + shift))
        elif not isinstance(provenance, Shared):
            return step.mixed("uses the sum of several samples as an index")
    if isinstance(found, PerSample) and found.axis in goes:
        samples.append(found.moved_to(goes[found.axis]))
    return _met(samples, Shared()) or step.mixed("pairs every sample with every other")


def _foreign_rows(step: Step, found: PerSample, position: SamplePosition) -> Refused:
    if may_be_own_rows(found, position):
        return step.unshown(
            "picks rows at offsets that may lie outside a sample's own rows", "clamp them: offsets.clamp(0, T - 1)"
        )
    return step.mixed("uses the position of a sample in the batch as data")


def _met(samples: list[PerSample], none: Provenance) -> Provenance | None:
    """The one way in which all are per sample, `none` if there are none, None if they disagree."""
    if not samples:
        return none
    met: PerSample | None = samples[0]
    for found in samples[1:]:
        met = meet(met, found) if met is not None else None
    return met


@transfer(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(step: Step) -> Provenance:
    """operand[indices]: indices are broadcast together; `arange(B)` along the batch keeps the samples apart."""
    operand, indices = step.args[:2]
    found = step.of(operand)
    if isinstance(found, SummedOverSamples) and _all_shared(step, indices):
        return found
    if isinstance(found, (SummedOverSamples, SamplePosition)):
        return step.mixed("picks elements that depend on samples out of it")
    if _is_masked(step, indices):
        return step.unshown(PICKS_BY_MASK, KEEP_SHAPE)
    return _index_samples(step, operand, list(indices))


# How many elements each sample has among those that are picked, only the data tell.
PICKS_BY_MASK = "picks elements by a mask that depends on the samples"
KEEP_SHAPE = (
    "keep the shape and leave out what the mask leaves out: torch.where(mask, x, 0), F.cross_entropy(..., "
    'ignore_index=-100, reduction="none"), or dpgraph.losses.token_cross_entropy as loss_fn'
)


def _is_masked(step: Step, indices: Sequence[Node | None]) -> bool:
    """Whether one of the indices is a mask that some samples own."""
    return any(
        x is not None and x.meta["val"].dtype in (torch.bool, torch.uint8) and not isinstance(step.of(x), Shared)
        for x in indices
    )


@transfer(aten._unsafe_masked_index.default)
def masked_index(step: Step) -> Provenance:
    """(operand, mask, indices, fill)."""
    operand, mask, indices = step.args[:3]
    if isinstance(step.of(operand), (SummedOverSamples, SamplePosition)):
        return step.mixed("indexes it")
    picked = _index_samples(step, operand, list(indices))
    masked = step.of(mask)
    if isinstance(masked, Shared) or not isinstance(picked, PerSample):
        return picked
    aligned = isinstance(masked, PerSample) and len(step.shape(mask)) == len(step.out_shape)
    met = meet(picked, masked) if aligned and isinstance(masked, PerSample) else None
    return met or step.mixed("masks it by other samples")


@transfer(aten.index_put.default)
def index_put(step: Step) -> Provenance:
    """(operand, indices, values, accumulate): the gradient of `index`, when it accumulates into zeros."""
    operand, indices, values = step.args[:3]
    accumulates = bool(step.arg(3, "accumulate", False))
    if _is_masked(step, indices):
        return step.unshown(PICKS_BY_MASK, KEEP_SHAPE)
    return _put(step, operand, list(indices), values, accumulates)


def _put(step: Step, operand: Node, indices: list[Node | None], values: Node, accumulates: bool) -> Provenance:
    found, put = step.of(operand), step.of(values)
    if isinstance(put, SummedOverSamples):
        linear = is_zero(operand) and _all_shared(step, indices)
        return put if linear else step.mixed("writes it at places that depend on samples")
    depends = [step.of(x) for x in indices]
    if not isinstance(found, (Shared, PerSample)) or any(isinstance(p, SummedOverSamples) for p in depends):
        return step.mixed("writes into it")
    positions = {dim: p for dim, p in enumerate(depends) if isinstance(p, SamplePosition)}
    if isinstance(put, SamplePosition) or len(positions) > 1:
        return step.mixed("uses the position of a sample in the batch as data")
    samples = _met(list(_written_samples(step, operand, indices, values)), Shared())
    if samples is None:
        return step.mixed("writes values of samples to places of others")
    if positions:
        ((dim, position),) = positions.items()
        return _put_in_own_rows(step, found, position, dim)
    _, _, goes = _result_axes(step, operand, indices)
    if not isinstance(samples, PerSample):
        untouched = isinstance(found, PerSample) and found.axis in goes
        return found if untouched else step.mixed("overwrites some of the samples")
    axis = {there: here for here, there in goes.items()}.get(samples.axis)
    if axis is None:
        if isinstance(found, PerSample):
            return step.mixed("writes to places that several samples share")
        sums = accumulates and is_zero(operand)
        return SummedOverSamples(step.node) if sums else step.mixed("writes to places that several samples share")
    written = samples.moved_to(axis)
    met = written if isinstance(found, Shared) else meet(found, written)
    return met or step.mixed("writes to places of other samples")


def _put_in_own_rows(step: Step, found: Shared | PerSample, position: SamplePosition, dim: int) -> Provenance:
    """Values written at positions along axis `dim`, which by that has B * stride places."""
    rows = PerSample(dim, inner=position.stride)
    met = rows if isinstance(found, Shared) else meet(found, rows)
    if met is None:
        return step.mixed("writes to places of other samples")
    return met if own_rows(met, position) else _foreign_rows(step, met, position)


def _written_samples(step: Step, operand: Node, indices: list[Node | None], values: Node) -> Iterator[PerSample]:
    """What is per sample among the values and the indices, at its axis in the shape of operand[indices]."""
    place, rank, goes = _result_axes(step, operand, indices)
    for x in (x for x in indices if x is not None):
        found = step.of(x)
        if isinstance(found, (PerSample, SamplePosition)):
            shift = place + rank - len(step.shape(x))
            yield (found if isinstance(found, PerSample) else found.layout).moved_to(found.axis + shift)
    put = step.of(values)
    if isinstance(put, PerSample):
        yield put.moved_to(put.axis + rank + len(goes) - len(step.shape(values)))


def _all_shared(step: Step, indices: list[Node | None]) -> bool:
    return all(isinstance(step.of(x), Shared) for x in indices)


@transfer(aten.gather.default)
def gather(step: Step) -> Provenance:
    """(operand, dim, index): element i of the result reads operand at i, with the index along `dim`."""
    operand, dim, where = step.args[:3]
    found, position = step.of(operand), step.of(where)
    if isinstance(found, PerSample) and found.axis == dim % len(step.shape(operand)):
        if not isinstance(position, SamplePosition) or position.axis != found.axis:
            return step.mixed("picks samples out of the batch")
        return position.layout if own_rows(found, position) else _foreign_rows(step, found, position)
    return step.agreed([operand, where])


@transfer(aten.scatter.src, aten.scatter.value, aten.scatter_add.default, aten.scatter_reduce.two)
def scatter(step: Step) -> Provenance:
    """(operand, dim, index, source): element i of the source is written at i, with the index along `dim`."""
    operand, dim, where, source = step.args[:4]
    axis = dim % max(len(step.out_shape), 1)
    found = step.of(operand)
    sums = [p for p in (found, step.of(source)) if isinstance(p, SummedOverSamples)]
    if sums:
        parts = all(isinstance(step.of(x), SummedOverSamples) or is_zero(x) for x in (operand, source))
        linear = parts and isinstance(step.of(where), Shared) and step.node.target in LINEAR_SCATTERS
        return sums[0] if linear else step.mixed("writes it at places that depend on samples")
    position = step.of(where)
    if isinstance(position, SamplePosition):
        return _scatter_in_own_rows(step, found, position, axis, step.of(source))
    written = step.agreed([where, source])
    if isinstance(written, Refused):
        return written
    if isinstance(written, Shared):
        along = isinstance(found, PerSample) and found.axis == axis
        return step.mixed("overwrites some of the samples") if along else found
    if written.axis == axis:
        sums_up = step.node.target is aten.scatter_add.default and is_zero(operand)
        return SummedOverSamples(step.node) if sums_up else step.mixed("writes to places that several samples share")
    return step.agreed([operand, where, source])


def _scatter_in_own_rows(
    step: Step, found: Provenance, position: SamplePosition, axis: int, source: Provenance
) -> Provenance:
    """Elements written at positions along `axis`, each with the number at its own place."""
    if position.axis != axis or not isinstance(found, (Shared, PerSample)):
        return step.mixed("uses the position of a sample in the batch as data")
    own = isinstance(source, Shared) or (isinstance(source, PerSample) and meet(position.layout, source) is not None)
    return _put_in_own_rows(step, found, position, axis) if own else step.mixed("writes to places of other samples")


LINEAR_SCATTERS = {aten.scatter.src, aten.scatter.value, aten.scatter_add.default}
