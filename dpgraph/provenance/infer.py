"""Infer which elements of every value of a joint graph depend on which sample."""

import operator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import Constant, Input, JointGraph, Parameter, Sample, Tangent
from dpgraph.provenance.experiment import find_contradiction
from dpgraph.provenance.lattice import (
    PerSample,
    Provenance,
    Refused,
    SamplePosition,
    Shared,
    SummedOverSamples,
    mixes,
)
from dpgraph.provenance.numbers import (
    READS_SIZES,
    Sizes,
    earliest,
    has_no_tensor,
    note_input,
    of_numbers,
    of_size_read,
    with_sizes,
)
from dpgraph.provenance.registry import REGISTERED, Results, Step, find_transfer
from dpgraph.provenance.rules import CREATIONS, SHAPED_BY_SIZES, TAKES_SIZES, operands_read
from dpgraph.provenance.scale import find_power, power_of_number

__all__ = ["infer_provenance"]

aten = torch.ops.aten
prims = torch.ops.prims

OWNED_BY_NONE = (
    "makes of parameters alone what the forward returns or keeps: a gradient of it would belong to no sample"
)
DETACH = (
    "detach() it; leave weight decay to the optimizer; compute anew in every forward what hooks or caches keep between "
    "calls: torch.nn.utils.prune.remove() once a model is pruned, no parametrize.cached()"
)


def infer_provenance(joint: JointGraph, *, outer_power: int = 0) -> MappingProxyType[Node, Results]:
    """Provenance of every node of a joint graph.

    The inputs' come from their roles; those of the tangents from the outputs whose gradients they are, under the
    assumption that the loss outside the graph is a sum over the samples of what each contributes alone.

    Args:
        joint: the graph.
        outer_power: the power of B with which the loss outside the graph scales that sum: -1 if it is a mean.

    Returns:
        node -> Provenance, or a tuple of them for an op with several results.
    """
    known: dict[Node, Results] = {}
    sizes: Sizes = {}
    nodes = [node for node in joint.graph.nodes if node.op != "output"]
    backward = [node for node in nodes if not _infer(joint, node, known, sizes)]
    for node in backward:
        if node.op == "placeholder":
            known[node] = _of_tangent(joint, known, joint.inputs[node.name], outer_power)
    for node in backward:
        _infer(joint, node, known, sizes)
    return MappingProxyType(known)


def _infer(joint: JointGraph, node: Node, known: dict[Node, Results], sizes: Sizes) -> bool:
    """Add what is known of a node; False if it needs a gradient from outside of which nothing is known yet."""
    if node.op == "placeholder":
        match joint.inputs[node.name]:
            case Sample(axis=axis):
                known[node] = PerSample(axis)
            case Parameter() | Constant():
                known[node] = Shared()
            case Tangent():
                return False
        note_input(node, sizes)
    elif node.op == "get_attr":
        known[node] = Shared()
    elif any(x not in known for x in node.all_input_nodes):
        return False
    else:
        known[node] = _of_op(Step(node, joint.batch_symbol, known), sizes)
    return True


def _of_tangent(joint: JointGraph, known: dict[Node, Results], role: Input, outer_power: int) -> Provenance:
    """A gradient that comes from outside: as its output, and constant for a sum over the samples."""
    assert isinstance(role, Tangent)
    if role.output is None:
        return PerSample(0)
    output = joint.nodes[role.output]
    found = known[output]
    assert not isinstance(found, tuple)
    match found:
        case PerSample():
            return replace(found, power=outer_power, scaled_at=None)
        case SummedOverSamples():
            return Shared()
        case Refused():
            return found
        case _:
            return mixes(output, OWNED_BY_NONE, DETACH)


def _of_op(step: Step, sizes: Sizes) -> Results:
    node = step.node
    if node.target is operator.getitem:
        source = step.known[node.args[0]]  # type: ignore[index]
        return source[node.args[1]] if isinstance(source, tuple) else source  # type: ignore[index]
    if node.target in READS_SIZES:
        return _number(step, of_size_read(node, sizes))
    if has_no_tensor(node) and not step.tensors:
        return _number(step, of_numbers(step))
    return with_sizes(step, _of_tensors(step), sizes)


def _number(step: Step, found: Shared | Refused) -> Results:
    power = power_of_number(step.node, step.batch)
    return replace(found, power=power) if power and isinstance(found, Shared) else found


def _of_tensors(step: Step) -> Results:
    node = step.node
    found = _of_operands(step)
    if isinstance(found, Refused):
        return found
    if _takes_batch_size(step):
        return mixes(node, "takes the number of samples for an index or a setting")
    return _with_power(step, _with_one_batch_axis(step, found))


def _of_operands(step: Step) -> Results:
    """What the operands make of the result, powers of B aside."""
    node = step.node
    found = [p for x in operands_read(node) for p in _all(step.known[x])]
    refused = [p for p in found if isinstance(p, Refused)]
    if refused:
        return earliest(refused)
    if node.target in CREATIONS and all(isinstance(p, Shared) for p in found):
        return _created(step)
    if all(isinstance(p, Shared) for p in found):
        return _of_shared(step)
    rule = find_transfer(node.target)
    if rule is None:
        return Refused(node, "unknown", "has no transfer rule in dpgraph")
    claimed = rule(step)
    contradiction = find_contradiction(step, claimed) if node.target in REGISTERED else None
    return claimed if contradiction is None else contradiction


def _of_shared(step: Step) -> Results:
    """An op of shared values alone: shared, unless it makes an axis that runs over the samples."""
    node = step.node
    value = node.meta.get("val")
    several = value if isinstance(value, (tuple, list)) else (value,)
    if not any(
        step.batch in size.free_symbols for v in several if isinstance(v, Tensor) for size in map(step.size, v.shape)
    ):
        return Shared()
    if node.target is prims.iota.default:
        return _position(step)
    if node.target is aten.expand.default or (node.target is aten.repeat.default and _repeats_one(step)):
        return _created(step)
    if node.target is aten.repeat.default:
        return _tiled(step)
    return mixes(node, "gives each place in the batch a value of its own")


def _created(step: Step) -> Provenance:
    """Elements that are all equal, or random: they belong to whichever samples they are paired with."""
    axes = [i for i, size in enumerate(step.out_shape) if step.batch in size.free_symbols]
    if not axes:
        return Shared()
    inner = sympy.cancel(step.out_shape[axes[0]] / step.batch)
    if len(axes) > 1 or step.batch in inner.free_symbols:
        return mixes(step.node, "gives each place in the batch a value of its own")
    return PerSample(axes[0], inner=inner, exchangeable=True)


def _repeats_one(step: Step) -> bool:
    """Whether every axis that is repeated as often as there are samples has one element."""
    shape, repeats = step.shape(step.args[0]), step.args[1]
    own = (sympy.Integer(1),) * (len(repeats) - len(shape)) + shape
    return all(
        size == 1
        for size, times in zip(own, repeats, strict=True)
        if isinstance(times, Node) and _is_batch_size(times, step)
    )


def _tiled(step: Step) -> Provenance:
    """One copy of a shared axis for each sample, end to end: (b, i) holds what i held, whichever sample b is."""
    shape, repeats = step.shape(step.args[0]), step.args[1]
    own = (sympy.Integer(1),) * (len(repeats) - len(shape)) + shape
    axes = [i for i, times in enumerate(repeats) if step.size(times) == step.batch]
    if len(axes) == 1:
        return PerSample(axes[0], inner=own[axes[0]])
    return mixes(step.node, "gives each place in the batch a value of its own")


def _position(step: Step) -> Provenance:
    """`arange(B)` holds the position of each sample; any other count is data that the place of a sample decides."""
    start, stride = step.node.kwargs.get("start", 0), step.node.kwargs.get("step", 1)
    if step.out_shape == (step.batch,) and (start, stride) == (0, 1):
        return SamplePosition(0, step.node)
    return mixes(step.node, "counts through the batch, so that each place in it gets a value of its own")


def _with_one_batch_axis(step: Step, results: Results) -> Results:
    """`results`, unless the samples' number is the size of an axis that does not run over the samples."""
    value = step.node.meta.get("val")
    if not isinstance(value, (tuple, list)):
        return _one_batch_axis(step, results, value)  # type: ignore[arg-type]
    each = results if isinstance(results, tuple) else (results,) * len(value)
    return tuple(_one_batch_axis(step, p, v) for p, v in zip(each, value, strict=True))


def _one_batch_axis(step: Step, found: Provenance, value: object) -> Provenance:
    if not isinstance(value, Tensor) or isinstance(found, Refused):
        return found
    sizes = [step.size(s) for s in value.shape]
    if isinstance(found, (PerSample, SamplePosition)):
        size = sizes.pop(found.axis)
        if sympy.expand(size - found.outer * step.batch * found.inner) != 0:
            return step.unshown("changes how many places the samples take")
    if any(step.batch in size.free_symbols for size in sizes):
        return step.mixed("gives a value as many places as there are samples")
    return found


# Along the samples these take whole blocks of them, which their rules see to.
CUTS = {
    aten.slice.Tensor: 1,
    aten.slice_scatter.default: 2,
    aten.split.Tensor: 2,
    aten.split_with_sizes.default: 2,
}


def _cuts_samples(step: Step) -> bool:
    if step.node.target not in CUTS:
        return False
    found = step.of(step.args[0])
    return (
        isinstance(found, PerSample)
        and step.arg(CUTS[step.node.target], "dim", 0) % len(step.shape(step.args[0])) == found.axis
    )


# These take a number of groups, which their rules compare with the samples' number.
GROUPED = {aten.convolution.default: 8, aten.convolution_backward.default: 9}


def _takes_batch_size(step: Step) -> bool:
    """Whether an op that is given the number of samples takes it for anything but a shape or a value."""
    target: Any = step.node.target
    values = torch.Tag.pointwise in getattr(target, "tags", ())
    if target in SHAPED_BY_SIZES or target in TAKES_SIZES or values or _cuts_samples(step):
        return False
    groups = step.args[GROUPED[target]] if target in GROUPED else None
    return any(_is_batch_size(x, step) for x in operands_read(step.node) if x is not groups)


def _is_batch_size(x: Node, step: Step) -> bool:
    value = x.meta.get("val")
    return (
        isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) and step.batch in value.node.expr.free_symbols
    )


def _with_power(step: Step, results: Results) -> Results:
    """`results`, with the power of B that the op leaves before them."""
    found = find_power(step, results)
    if isinstance(found, Refused):
        return found
    power, scaled_at = found
    return _replace_power(results, power, scaled_at)


def _replace_power(results: Results, power: int, scaled_at: Node | None) -> Results:
    if isinstance(results, tuple):
        return tuple(p for r in results for p in _all(_replace_power(r, power, scaled_at)))
    if isinstance(results, (Refused, SamplePosition)):
        return results
    return replace(results, power=power, scaled_at=scaled_at)


def _all(results: Results) -> tuple[Provenance, ...]:
    return results if isinstance(results, tuple) else (results,)
