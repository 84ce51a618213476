"""Infer which elements of every value of a joint graph depend on which sample."""

import operator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import Constant, Input, JointGraph, Parameter, Sample, Tangent
from dpgraph.provenance.lattice import (
    PerSample,
    Provenance,
    Refused,
    SamplePosition,
    Shared,
    SummedOverSamples,
    mixes,
)
from dpgraph.provenance.registry import Results, Step, find_transfer, size_of
from dpgraph.provenance.rules import READS_SHAPE_ONLY
from dpgraph.torch_compat import tree_leaves

__all__ = ["infer_provenance"]

aten = torch.ops.aten
prims = torch.ops.prims
SIZES = {aten.sym_size.int, aten.sym_numel.default, aten.sym_stride.int, aten.sym_storage_offset.default}
NO_VALUE = {aten._assert_scalar.default, aten.sym_constrain_range_for_size.default, aten._assert_async.msg}


def infer_provenance(joint: JointGraph) -> MappingProxyType[Node, Results]:
    """Provenance of every node of a joint graph.

    The inputs' come from their roles; those of the tangents from the outputs whose gradients they are, under the
    assumption that the loss outside the graph is a sum over the samples of what each contributes alone.

    Returns:
        node -> Provenance, or a tuple of them for an op with several results.
    """
    known: dict[Node, Results] = {}
    nodes = list(joint.graph.nodes)
    backward = [node for node in nodes if not _infer(joint, node, known)]
    for node in backward:
        if node.op == "placeholder":
            known[node] = _of_tangent(joint, known, joint.inputs[node.name])
    for node in backward:
        _infer(joint, node, known)
    return MappingProxyType(known)


def _infer(joint: JointGraph, node: Node, known: dict[Node, Results]) -> bool:
    """Add what is known of a node; False if it needs a gradient from outside of which nothing is known yet."""
    if node in known or node.op == "output":
        return True
    if node.op == "placeholder":
        match joint.inputs[node.name]:
            case Sample(axis=axis):
                known[node] = PerSample(axis)
            case Parameter() | Constant():
                known[node] = Shared()
            case Tangent():
                return False
    elif node.op == "get_attr":
        known[node] = Shared()
    elif any(x not in known for x in node.all_input_nodes):
        return False
    else:
        known[node] = _of_op(Step(node, joint.batch_symbol, known))
    return True


def _of_tangent(joint: JointGraph, known: dict[Node, Results], role: Input) -> Provenance:
    """A gradient that comes from outside: as its output, and constant for a sum over the samples."""
    assert isinstance(role, Tangent)
    if role.output is None:
        return PerSample(0)
    output = joint.nodes[role.output]
    found = known[output]
    assert not isinstance(found, tuple)
    match found:
        case PerSample() | Refused():
            return replace(found, scaled_by_batch_size=None)
        case SummedOverSamples():
            return Shared()
        case _:
            return mixes(output, "is an output that no sample owns, so its gradient is a sum that cannot be split")


def _of_op(step: Step) -> Results:
    node = step.node
    if node.target in NO_VALUE:
        return Shared()
    if node.target is operator.getitem:
        source = step.known[node.args[0]]  # type: ignore[index]
        return source[node.args[1]] if isinstance(source, tuple) else source  # type: ignore[index]
    if node.target in READS_SHAPE_ONLY or node.target in SIZES:
        return _like(node, Shared())
    operands = [x for x in tree_leaves((node.args, node.kwargs)) if isinstance(x, Node)]
    found = [p for x in operands for p in _all(step.known[x])]
    refused = next((p for p in found if isinstance(p, Refused)), None)
    if refused is not None:
        return _like(node, refused)
    position = _sample_position(step)
    if position is not None:
        return position
    if all(isinstance(p, Shared) for p in found):
        result: Results = _like(node, Shared())
    else:
        rule = find_transfer(node.target)
        unknown = Refused(node, "unknown", "is an operator that dpgraph has no transfer rule for")
        result = rule(step) if rule is not None else _like(node, unknown)
    sized = _batch_size_enters(step) or next((s for p in found if (s := p.scaled_by_batch_size) is not None), None)
    return _scaled(result, sized) if sized is not None else result


def _all(results: Results) -> tuple[Provenance, ...]:
    return results if isinstance(results, tuple) else (results,)


def _like(node: Node, provenance: Provenance) -> Results:
    """The same provenance for every result of a node."""
    value = node.meta.get("val")
    return (provenance,) * len(value) if isinstance(value, (tuple, list)) else provenance


def _scaled(results: Results, origin: Node) -> Results:
    if isinstance(results, tuple):
        return tuple(replace(p, scaled_by_batch_size=p.scaled_by_batch_size or origin) for p in results)
    return replace(results, scaled_by_batch_size=results.scaled_by_batch_size or origin)


def _sample_position(step: Step) -> SamplePosition | None:
    """`arange(B)` holds the position of each sample."""
    if step.node.target is not prims.iota.default or step.out_shape != (step.batch,):
        return None
    return SamplePosition(0, step.node)


# Ops whose integer arguments are values, not sizes; everywhere else a size only gives a shape.
TAKES_SIZES_AS_VALUES = {aten.scalar_tensor.default: (0,), aten.full.default: (1,), aten.full_like.default: (1,)}


def _batch_size_enters(step: Step) -> Node | None:
    """This node, if it computes a tensor with the number of samples as a value."""
    node = step.node
    if not isinstance(node.meta.get("val"), Tensor):
        return None
    target: Any = node.target
    values: tuple[Any, ...] = ()
    if target in TAKES_SIZES_AS_VALUES:
        values = tuple(node.args[i] for i in TAKES_SIZES_AS_VALUES[target] if i < len(node.args))
    elif torch.Tag.pointwise in getattr(target, "tags", ()):
        values = node.args
    return node if any(_has_batch_size(v, step) for v in values) else None


def _has_batch_size(value: Any, step: Step) -> bool:
    held = value.meta.get("val") if isinstance(value, Node) else None
    if isinstance(held, torch.SymInt):
        return bool(step.batch in size_of(held).free_symbols)
    return isinstance(held, torch.SymFloat) and step.batch in held.node.expr.free_symbols
