"""Transfer rules of ops that work along some axes: reductions, and scans, sorts, softmax that keep the shape."""

import torch

from dpgraph.provenance.lattice import PerSample, Provenance, Shared, SummedOverSamples
from dpgraph.provenance.registry import Step, transfer

aten = torch.ops.aten

SUMS = {aten.sum.default, aten.sum.dim_IntList}
MEANS = {aten.mean.default, aten.mean.dim}


def _reduced(step: Step, found: Provenance, dims: set[int], keepdim: bool) -> Provenance:
    """Provenance of a reduction of `found` over `dims`."""
    if isinstance(found, Shared):
        return found
    if isinstance(found, SummedOverSamples):
        linear = step.node.target in SUMS | MEANS
        return found if linear else step.mixed("uses the sum of several samples in a way that is not linear")
    if not isinstance(found, PerSample):
        return step.mixed("computes with the position of a sample in the batch")
    if found.axis not in dims:
        return found.moved_to(found.axis - (0 if keepdim else sum(d < found.axis for d in dims)))
    if step.node.target in SUMS | MEANS:
        return SummedOverSamples(step.node)
    return step.mixed("reduces over the samples")


def _dims(step: Step, dims: object) -> set[int]:
    rank = len(step.shape(step.args[0]))
    if dims is None or dims == []:
        return set(range(rank))
    return {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if rank else set()  # type: ignore[attr-defined]


@transfer(
    aten.sum.default,
    aten.mean.default,
    aten.max.default,
    aten.min.default,
    aten.any.default,
    aten.prod.default,
)
def reduce_all(step: Step) -> Provenance:
    """Over all axes."""
    return _reduced(step, step.of(step.args[0]), _dims(step, None), keepdim=False)


@transfer(
    aten.sum.dim_IntList,
    aten.mean.dim,
    aten.amax.default,
    aten.amin.default,
    aten.any.dim,
    aten.any.dims,
    aten.prod.dim_int,
    aten.argmax.default,
    aten.argmin.default,
)
def reduce_dims(step: Step) -> Provenance:
    """Over the given axes (operand, dims, keepdim)."""
    dims = _dims(step, step.arg(1, "dim"))
    return _reduced(step, step.of(step.args[0]), dims, bool(step.arg(2, "keepdim", False)))


@transfer(
    aten.max.dim,
    aten.min.dim,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    aten.kthvalue.default,
)
def reduce_with_index(step: Step) -> Provenance:
    """Values and indices; the dimension follows the operand, or k."""
    at = 2 if step.node.target is aten.kthvalue.default else 1
    dims = {step.arg(at, "dim", -1) % max(len(step.shape(step.args[0])), 1)}
    return _reduced(step, step.of(step.args[0]), dims, bool(step.arg(at + 1, "keepdim", False)))


@transfer(aten.var_mean.correction, aten.var.correction)
def moments(step: Step) -> Provenance:
    """Variance, alone or with the mean."""
    dims = _dims(step, step.arg(1, "dim"))
    return _reduced(step, step.of(step.args[0]), dims, bool(step.node.kwargs.get("keepdim", False)))


def _along(step: Step, dims: object) -> Provenance:
    """Provenance of an op that mixes freely along `dims` and keeps the other axes."""
    found = step.agreed(step.tensors)
    if isinstance(found, PerSample) and found.axis in _dims(step, dims):
        return step.mixed("computes along the samples")
    return found


@transfer(
    aten.cumsum.default,
    aten.cumprod.default,
    aten.logcumsumexp.default,
)
def scan(step: Step) -> Provenance:
    """(operand, dim): the result keeps the shape."""
    return _along(step, step.args[1])


@transfer(aten._fft_c2c.default, aten._fft_r2c.default, aten._fft_c2r.default)
def fourier(step: Step) -> Provenance:
    """(operand, dims): each value of the result is made of all along `dims`."""
    found = step.of(step.args[0])
    return found if isinstance(found, SummedOverSamples) else _along(step, step.args[1])


@transfer(aten.sort.default, aten.cummax.default, aten.cummin.default)
def sort(step: Step) -> Provenance:
    """(operand, dim): values and indices."""
    return _along(step, step.arg(1, "dim", -1))


@transfer(aten.sort.stable)
def sort_stable(step: Step) -> Provenance:
    """(operand, *, stable, dim)."""
    return _along(step, step.arg(3, "dim", -1))


@transfer(aten.topk.default)
def topk(step: Step) -> Provenance:
    """(operand, k, dim): values and indices."""
    return _along(step, step.arg(2, "dim", -1))
