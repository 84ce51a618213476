"""Transfer rules of distances between rows: [*, P, d] and [*, R, d] to [*, P, R].

Leading axes, aligned from the right, stay apart. So do the rows of one operand if the other one is shared.
"""

import torch
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Shared, SummedOverSamples
from dpgraph.provenance.registry import Step, transfer

aten = torch.ops.aten


def _among_leading_or_rows(step: Step, operands: list[Node], left: Node, right: Node) -> Provenance:
    """As the operands agree: the samples on a leading axis, or rows of the left one while the right one is shared."""
    rank = len(step.shape(operands[0]))
    found = step.agreed(operands, [rank - len(step.shape(x)) for x in operands])
    if not isinstance(found, PerSample):
        return found
    rows_of_left = found.axis == rank - 2 and isinstance(step.of(left), PerSample)
    if found.axis < rank - 2 or (rows_of_left and isinstance(step.of(right), Shared)):
        return found
    return step.mixed("measures distances between samples")


@transfer(aten._cdist_forward.default)
def distances(step: Step) -> Provenance:
    """(left, right) to the distances of all rows of one from all rows of the other."""
    left, right = step.args[:2]
    widest = max((left, right), key=lambda x: len(step.shape(x)))
    operands = [widest, right if widest is left else left]
    found = step.of(right)
    if isinstance(step.of(left), Shared) and isinstance(found, PerSample):
        # the same with the sides exchanged, so that rows of the right one are columns of the result
        swapped = _among_leading_or_rows(step, operands, right, left)
        rows = isinstance(swapped, PerSample) and swapped.axis == len(step.out_shape) - 2
        return swapped.moved_to(len(step.out_shape) - 1) if rows else swapped  # type: ignore[union-attr]
    return _among_leading_or_rows(step, operands, left, right)


@transfer(aten._cdist_backward.default)
def distances_backward(step: Step) -> Provenance:
    """(grad [*, P, R], left, right, p, distances) to the gradient of left: a sum over the rows of right."""
    grad, left, right, _, apart = step.args
    found, rank = step.of(right), len(step.shape(grad))
    if isinstance(step.of(left), Shared) and isinstance(found, PerSample) and found.axis == len(step.shape(right)) - 2:
        # the samples are rows of right, and so along the last axis of grad and of the distances
        agreed = step.agreed([grad, right, apart], [0, rank + 1 - len(step.shape(right)), 0])
        return SummedOverSamples(step.node) if isinstance(agreed, PerSample) else agreed
    return _among_leading_or_rows(step, [grad, left, right, apart], left, right)
