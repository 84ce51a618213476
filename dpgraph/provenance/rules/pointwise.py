"""Transfer rules of pointwise ops: element by element, after broadcasting."""

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import Provenance, SamplePosition, Shared, SummedOverSamples
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.provenance.rules.positions import of_positions

aten = torch.ops.aten
prims = torch.ops.prims

# Linear in the first operand when the others are shared.
LINEAR_IN_FIRST = {
    aten.neg.default,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    prims.convert_element_type.default,
    aten.clone.default,
}
ADDITIVE = {aten.add.Tensor, aten.sub.Tensor}


@transfer(torch.Tag.pointwise, prims.convert_element_type.default, aten.clone.default, aten.copysign.Tensor)
def pointwise(step: Step) -> Provenance:
    """Operands are aligned at the last axis; all per-sample operands must agree on the axis."""
    operands = step.tensors
    found = [step.of(x) for x in operands]
    if any(isinstance(p, SummedOverSamples) for p in found):
        return _of_sums(step, operands)
    if any(isinstance(p, SamplePosition) for p in found):
        return of_positions(step)
    rank = len(step.out_shape)
    return step.agreed(operands, [rank - len(step.shape(x)) for x in operands])


@transfer(aten.copy.default)
def copy(step: Step) -> Results:
    """(into, source): the source in the shape of the first, of which nothing is left."""
    into, source = step.args[:2]
    found = step.of(source)
    if isinstance(found, SummedOverSamples) and step.shape(into) == step.shape(source):
        return found
    return pointwise(step)


def _of_sums(step: Step, operands: list[Node]) -> Provenance:
    """Linear ops keep a sum over the samples a sum; any other op mixes them."""
    summed = [x for x in operands if isinstance(step.of(x), SummedOverSamples)]
    others = [x for x in operands if not isinstance(step.of(x), SummedOverSamples)]
    first = step.of(summed[0])
    shared = all(isinstance(step.of(x), Shared) for x in others)
    target = step.node.target
    if target in ADDITIVE and shared and all(is_zero(x) for x in step.args if x not in summed):
        return first
    if target in (aten.mul.Tensor, aten.mul.Scalar) and len(summed) == 1 and shared:
        return first
    if target in LINEAR_IN_FIRST and summed == [step.args[0]] and shared and _keeps_fractions(step.node):
        return first
    if target is aten.where.self and shared and all(x in summed or is_zero(x) for x in step.args[1:]):
        return first
    return step.mixed("uses the sum of several samples in a way that is not linear")


def _keeps_fractions(node: Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)


def is_zero(operand: object) -> bool:
    """Whether an operand is a constant zero, by how it was made."""
    if isinstance(operand, Node):
        if operand.target in (aten.full.default, aten.full_like.default):
            return bool(operand.args[1] == 0)
        if operand.target is aten.scalar_tensor.default:
            return bool(operand.args[0] == 0)
    return isinstance(operand, (int, float)) and operand == 0
