"""Transfer rules of matrix products: an axis that is contracted, axes that are kept, axes that are batched."""

import torch

from dpgraph.provenance.lattice import PerSample, Provenance, Shared, SummedOverSamples, meet
from dpgraph.provenance.registry import Step, transfer

aten = torch.ops.aten


def _product(step: Step, left: torch.fx.Node, right: torch.fx.Node, num_batch: int) -> Provenance:
    """Provenance of left [*batch, m, k] @ right [*batch, k, n]."""
    a, b = step.of(left), step.of(right)
    sums = [p for p in (a, b) if isinstance(p, SummedOverSamples)]
    if sums:
        linear = len(sums) == 1 and any(isinstance(p, Shared) for p in (a, b))
        return sums[0] if linear else step.mixed("multiplies it with values that depend on samples")
    roles = {_role(p, num_batch, side): p for side, p in (("left", a), ("right", b)) if isinstance(p, PerSample)}
    if len(roles) + sum(isinstance(p, Shared) for p in (a, b)) < 2 and not _agree(a, b):
        return step.mixed("multiplies values of different samples")
    if "contracted" in roles:
        pure = len(roles) == 1 and (_agree(a, b) or isinstance(a, Shared) or isinstance(b, Shared))
        return SummedOverSamples(step.node) if pure else step.mixed("multiplies every sample with every other")
    if len(roles) != 1:
        return step.mixed("multiplies every sample with every other")
    (role, found), *_ = roles.items()
    return found.moved_to(num_batch + 1 if role == "right" else num_batch if role == "left" else found.axis)


def _role(found: PerSample, num_batch: int, side: str) -> str:
    """What the samples' axis is to the product: batched, contracted, or kept on one side."""
    if found.axis < num_batch:
        return f"batch {found.axis}"
    contracted = num_batch + (1 if side == "left" else 0)
    return "contracted" if found.axis == contracted else side


def _agree(a: Provenance, b: Provenance) -> bool:
    """Whether two operands cut their samples' axes in the same way."""
    return isinstance(a, PerSample) and isinstance(b, PerSample) and meet(a.moved_to(0), b.moved_to(0)) is not None


@transfer(aten.mm.default)
def mm(step: Step) -> Provenance:
    """Matrix with matrix; products with vectors are decomposed into sums."""
    left, right = step.args[:2]
    return _product(step, left, right, num_batch=0)


@transfer(aten.bmm.default)
def bmm(step: Step) -> Provenance:
    """One product for each index of axis 0."""
    left, right = step.args[:2]
    return _product(step, left, right, num_batch=1)


@transfer(aten.addmm.default, aten.baddbmm.default)
def addmm(step: Step) -> Provenance:
    """bias + left @ right, the bias broadcast."""
    bias, left, right = step.args
    product = _product(step, left, right, num_batch=1 if step.node.target is aten.baddbmm.default else 0)
    added = step.of(bias)
    if isinstance(added, Shared) and isinstance(product, (PerSample, Shared)):
        return product
    if isinstance(added, PerSample) and isinstance(product, (PerSample, Shared)):
        aligned = added.moved_to(added.axis + len(step.out_shape) - len(step.shape(bias)))
        met = aligned if isinstance(product, Shared) else meet(product, aligned)
        return met or step.mixed("adds values of different samples")
    return step.mixed("adds it to a product")
