"""Transfer rules of ops that read or write at indices: embedding, index, gather, and their backward passes."""

import torch
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, SamplePosition, Shared, SummedOverSamples
from dpgraph.provenance.registry import Step, transfer
from dpgraph.provenance.rules.pointwise import is_zero

aten = torch.ops.aten


@transfer(aten.embedding.default)
def embedding(step: Step) -> Provenance:
    """weight [V, d], indices [*]: result [*, d]."""
    weight, indices = step.args[:2]
    if not isinstance(step.of(weight), Shared):
        return step.mixed("looks up a table that depends on samples")
    return step.agreed([indices]) or Shared()


@transfer(aten.embedding_dense_backward.default)
def embedding_dense_backward(step: Step) -> Provenance:
    """grad [*, d] added up at indices [*] of a table."""
    grad, indices = step.args[:2]
    found = step.of(grad)
    if isinstance(found, SummedOverSamples) and isinstance(step.of(indices), Shared):
        return found
    agreed = step.agreed([grad, indices])
    if not isinstance(agreed, PerSample):
        return agreed or Shared()
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
    samples: set[tuple[int, object, object]] = set()
    for dim, index in enumerate(indices):
        if index is None:
            continue
        provenance = step.of(index)
        shift = place + rank - len(step.shape(index))
        if isinstance(provenance, SamplePosition):
            if isinstance(found, Shared) and step.shape(operand)[dim] == step.batch:
                continue  # row b of a value that has a row for each place in the batch
            if dim != own or not isinstance(found, PerSample) or (found.outer, found.inner) != (1, 1):
                return step.mixed("uses the position of a sample in the batch as data")
            samples.add((provenance.axis + shift, found.outer, found.inner))
        elif dim == own:
            return step.mixed("picks samples out of the batch")
        elif isinstance(provenance, PerSample):
            samples.add((provenance.axis + shift, provenance.outer, provenance.inner))
        elif not isinstance(provenance, Shared):
            return step.mixed("uses the sum of several samples as an index")
    if isinstance(found, PerSample) and found.axis in goes:
        samples.add((goes[found.axis], found.outer, found.inner))
    if len(samples) > 1:
        return step.mixed("pairs every sample with every other")
    if not samples:
        return Shared()
    ((axis, outer, inner),) = samples
    return PerSample(axis, outer, inner)


@transfer(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(step: Step) -> Provenance:
    """operand[indices]: indices are broadcast together; `arange(B)` along the batch keeps the samples apart."""
    operand, indices = step.args[:2]
    if isinstance(step.of(operand), (SummedOverSamples, SamplePosition)):
        return step.mixed("indexes it")
    return _index_samples(step, operand, list(indices))


@transfer(aten._unsafe_masked_index.default)
def masked_index(step: Step) -> Provenance:
    """(operand, mask, indices, fill)."""
    operand, mask, indices = step.args[:3]
    if isinstance(step.of(operand), (SummedOverSamples, SamplePosition)):
        return step.mixed("indexes it")
    picked = _index_samples(step, operand, list(indices))
    masked = step.of(mask)
    if isinstance(masked, Shared) or not isinstance(picked, (Shared, PerSample)):
        return picked
    aligned = len(step.shape(mask)) == len(step.out_shape)
    return picked if aligned and masked == picked else step.mixed("masks it by other samples")


@transfer(aten.index_put.default)
def index_put(step: Step) -> Provenance:
    """(operand, indices, values, accumulate): the gradient of `index`, when it accumulates into zeros."""
    operand, indices, values = step.args[:3]
    accumulates = bool(step.arg(3, "accumulate", False))
    return _put(step, operand, list(indices), values, accumulates)


def _put(step: Step, operand: Node, indices: list[Node | None], values: Node, accumulates: bool) -> Provenance:
    found, put = step.of(operand), step.of(values)
    if isinstance(put, SummedOverSamples):
        return (
            put
            if is_zero(operand) and _all_shared(step, indices)
            else step.mixed("writes it at places that depend on samples")
        )
    place, rank, goes = _result_axes(step, operand, indices)
    back = {there: here for here, there in goes.items()}
    depends = [step.of(x) for x in indices if x is not None]
    if not isinstance(found, (Shared, PerSample)) or any(isinstance(p, SummedOverSamples) for p in depends):
        return step.mixed("writes into it")
    kept = {back[p.axis] for p in [put] if isinstance(p, PerSample) and p.axis in back}
    along = {d for d, x in enumerate(indices) if x is not None and isinstance(step.of(x), SamplePosition)}
    per_sample = [
        p.moved_to(p.axis + place + rank - len(step.shape(x)))
        for x, p in zip([x for x in indices if x is not None], depends, strict=True)
        if isinstance(p, PerSample)
    ]
    samples = {(p.axis, p.outer, p.inner) for p in per_sample}
    samples |= (
        {(put.axis + _shift(step, values, operand, rank, indices), put.outer, put.inner)}
        if isinstance(put, PerSample)
        else set()
    )
    axes = kept | along
    if len(axes) == 1:
        axis = axes.pop()
        ok = len(samples) <= 1 and (not along or _positions_match(step, indices, samples, place, rank))
        sample = PerSample(axis, *next(iter(samples))[1:]) if samples else PerSample(axis)
        same = isinstance(found, Shared) or (found.axis, found.outer, found.inner) == (axis, sample.outer, sample.inner)
        return sample if ok and same else step.mixed("writes to places of other samples")
    if not axes and accumulates and is_zero(operand) and len(samples) == 1:
        return SummedOverSamples(step.node)
    return step.mixed("writes to places that several samples share")


def _shift(step: Step, values: Node, operand: Node, rank: int, indices: list[Node | None]) -> int:
    """Values are broadcast to the shape that operand[indices] would have."""
    full = rank + len(step.shape(operand)) - sum(x is not None for x in indices)
    return full - len(step.shape(values))


def _positions_match(
    step: Step, indices: list[Node | None], samples: set[tuple[int, object, object]], place: int, rank: int
) -> bool:
    """Whether `arange(B)` runs along the axis on which the values hold their samples."""
    for x in indices:
        found = step.of(x) if x is not None else None
        if isinstance(found, SamplePosition):
            axis = found.axis + place + rank - len(step.shape(x))
            if samples and samples != {(axis, 1, 1)}:
                return False
    return True


def _all_shared(step: Step, indices: list[Node | None]) -> bool:
    return all(isinstance(step.of(x), Shared) for x in indices if x is not None)


@transfer(aten.gather.default)
def gather(step: Step) -> Provenance:
    """(operand, dim, index): element i of the result reads operand at i, with the index along `dim`."""
    operand, dim, where = step.args[:3]
    found = step.of(operand)
    if isinstance(found, PerSample) and found.axis == dim % len(step.shape(operand)):
        return step.mixed("picks samples out of the batch")
    return step.agreed([operand, where]) or Shared()


@transfer(aten.scatter.src, aten.scatter.value, aten.scatter_add.default, aten.scatter_reduce.two)
def scatter(step: Step) -> Provenance:
    """(operand, dim, index, source): element i of the source is written at i, with the index along `dim`."""
    operand, dim, where, source = step.args[:4]
    adds = step.node.target is aten.scatter_add.default
    put = step.of(source)
    if isinstance(put, SummedOverSamples):
        return (
            put
            if is_zero(operand) and isinstance(step.of(where), Shared)
            else step.mixed("writes it at places that depend on samples")
        )
    written = step.agreed([x for x in (where, source) if isinstance(x, Node)])
    if not isinstance(written, PerSample):
        into = step.of(operand)
        along = isinstance(into, PerSample) and into.axis == dim % len(step.out_shape)
        return step.mixed("overwrites some of the samples") if along else written or into
    if written.axis == dim % len(step.out_shape):
        sums = adds and is_zero(operand)
        return SummedOverSamples(step.node) if sums else step.mixed("writes to places that several samples share")
    agreed = step.agreed([x for x in (operand, where, source) if isinstance(x, Node)])
    return agreed or Shared()
