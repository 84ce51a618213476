"""Computing with the positions of samples in the batch: as far as the result still tells whose rows it points at.

A position holds stride * b + r for sample b. Times k it is (k stride) b + k r; plus a number f of the sample, or one
that all share, it is stride * b + (r + f). The difference of two of one stride is r - r', which is the sample's own.
"""

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.floors import is_never_negative
from dpgraph.provenance.lattice import PerSample, Provenance, SamplePosition, Shared, meet
from dpgraph.provenance.registry import Step
from dpgraph.provenance.rules.bounds import bound_of

__all__ = ["is_bounded", "may_be_own_rows", "of_positions", "own_rows"]

aten = torch.ops.aten
prims = torch.ops.prims
KEEPING = {prims.convert_element_type.default, aten.clone.default}
COMPUTES = "computes with the position of a sample in the batch"


def own_rows(found: PerSample, position: SamplePosition) -> bool:
    """Whether rows of `found` at these places, along its samples' axis, are the sample's own whatever the data are."""
    return is_bounded(position) and may_be_own_rows(found, position)


def is_bounded(position: SamplePosition) -> bool:
    """Whether it is known that 0 <= r < stride."""
    return position.below is not None and is_never_negative(sympy.expand(position.stride - position.below))


def may_be_own_rows(found: PerSample, position: SamplePosition) -> bool:
    """Whether they would be if r were known to be at least 0 and below the stride."""
    return bool(found.outer == 1 and sympy.expand(found.inner - position.stride) == 0)


def of_positions(step: Step) -> Provenance:
    """A pointwise op of which an operand is the position of samples."""
    target = step.node.target
    if target in KEEPING:
        return step.of(step.args[0])
    left, right = (*step.args, None)[:2]
    exact = isinstance(value := step.node.meta["val"], Tensor) and value.dtype is torch.int64
    if not exact or step.node.kwargs or len(step.args) != 2:
        return step.mixed(COMPUTES)
    found: Provenance | None = None
    match target:
        case aten.mul.Tensor | aten.mul.Scalar:
            found = _times(step, left, right) or _times(step, right, left)
        case aten.add.Tensor | aten.add.Scalar:
            found = _plus(step, left, right) or _plus(step, right, left)
        case aten.sub.Tensor | aten.sub.Scalar:
            found = _minus(step, left, right)
    return found or step.mixed(COMPUTES)


def _times(step: Step, x: object, factor: object) -> SamplePosition | None:
    found = _aligned(step, x)
    if found is None or isinstance(factor, (bool, float)):
        return None
    if isinstance(factor, Node) and not isinstance(factor.meta.get("val"), torch.SymInt):
        return None
    k = step.size(factor)
    if not k.is_positive or step.batch in k.free_symbols:
        return None
    below = None if found.below is None else sympy.expand((found.below - 1) * k + 1)
    return SamplePosition(
        found.axis, found.origin, found.outer, found.inner, stride=sympy.expand(found.stride * k), below=below
    )


def _plus(step: Step, x: object, other: object) -> SamplePosition | None:
    found = _aligned(step, x)
    layout = None if found is None else _met(step, found, other)
    if found is None or layout is None or isinstance(other, float):
        return None
    bound = bound_of(step, other)
    below = None if found.below is None or bound is None else sympy.expand(found.below + bound - 1)
    return SamplePosition(layout.axis, found.origin, layout.outer, layout.inner, stride=found.stride, below=below)


def _minus(step: Step, x: object, other: object) -> SamplePosition | PerSample | None:
    found, subtracted = _aligned(step, x), _aligned(step, other)
    if found is not None and subtracted is not None:
        # stride b + r - (stride b + r')
        same_stride = sympy.expand(found.stride - subtracted.stride) == 0
        return meet(found.layout, subtracted.layout) if same_stride else None
    layout = None if found is None else _met(step, found, other)
    if found is None or layout is None or isinstance(other, float):
        return None
    return SamplePosition(layout.axis, found.origin, layout.outer, layout.inner, stride=found.stride, below=None)


def _met(step: Step, found: SamplePosition, other: object) -> PerSample | None:
    """How samples lie in the result of a position with what is shared, or belongs to the same samples."""
    provenance = step.of(other)
    if isinstance(provenance, Shared):
        return found.layout
    if not isinstance(provenance, PerSample):
        return None
    assert isinstance(other, Node)
    return meet(found.layout, provenance.moved_to(provenance.axis + _shift(step, other)))


def _aligned(step: Step, x: object) -> SamplePosition | None:
    """The position that an operand is, on axes of the result."""
    found = step.of(x)
    if not isinstance(found, SamplePosition):
        return None
    assert isinstance(x, Node)
    return found.moved_to(found.axis + _shift(step, x))


def _shift(step: Step, x: Node) -> int:
    return len(step.out_shape) - len(step.shape(x))
