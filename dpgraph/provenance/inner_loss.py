"""Recognise a loss that a model computes itself, and name the function of `dpgraph.losses` that is the same per sample.

Such a loss is a sum over all samples that is divided: by the number of elements that the samples' data select (targets
that are not to be ignored, tokens that are no padding), or by the number of samples. It is recognised by these
operators and not by whose model it is.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.provenance.lattice import PerSample, SummedOverSamples
from dpgraph.provenance.registry import Results

__all__ = ["divides_by_selection", "find_mean_loss", "find_normalised_loss", "replace_loss"]

aten = torch.ops.aten

# How far the operators of a loss lie behind its sum.
DEPTH = 16


def find_normalised_loss(origin: Node, provenance: Mapping[Node, Results]) -> Node | None:
    """The sum over the samples that is divided by another such sum, if `origin` is one of the two."""
    for quotient in _quotients(origin):
        over, under = (_sum_behind(x, provenance) for x in quotient.args[:2])
        if under is not None and over is not None:
            return over
        if under is not None and divides_by_selection(under):
            return quotient
    return None


def divides_by_selection(total: Node) -> bool:
    """Whether a sum counts elements: it adds up truth values or integers."""
    operand = total.args[0]
    while isinstance(operand, Node) and operand.target in CASTS:
        operand = operand.args[0]
    return isinstance(operand, Node) and not operand.meta["val"].dtype.is_floating_point


def find_mean_loss(joint: JointGraph, provenance: Mapping[Node, Results]) -> Node | None:
    """The mean over all samples that the model returns, if there is one."""
    for output in joint.outputs[: joint.num_forward_outputs]:
        found = provenance.get(output) if output is not None else None
        if isinstance(found, SummedOverSamples) and found.power == -1:
            return found.origin
    return None


def replace_loss(total: Node, provenance: Mapping[Node, Results]) -> str:
    """What to do instead of computing the loss that ends in this sum inside the model."""
    function = _name(total, provenance)
    told = f"dp_compile(model, loss_fn={function})" if function else "dp_compile(model, loss_fn=...)"
    return (
        "leave the loss out of the model (call those of transformers without `labels`, and give decoder inputs "
        f"yourself) and let the compiler have it, {told}: then model(..., targets=(labels,)) returns one loss for each "
        'sample, divided by what that sample alone holds; a loss_fn of your own needs reduction="none"; or divide by a '
        "constant"
    )


CASTS = {torch.ops.prims.convert_element_type.default, aten.clone.default, aten.alias.default}
# What may stand between a sum and the division by it.
BETWEEN = CASTS | {
    aten.clamp_min.default,
    aten.clamp.default,
    aten.maximum.default,
    aten.add.Tensor,
    aten.neg.default,
    aten.mul.Tensor,
    aten.view.default,
    aten.where.self,
}


def _quotients(origin: Node) -> Iterator[Node]:
    """Divisions that a sum goes into, in the order of the graph."""
    seen = {origin}
    frontier = [origin]
    while frontier:
        users = [user for node in frontier for user in node.users if user not in seen]
        seen.update(users)
        yield from (user for user in users if user.target is aten.div.Tensor)
        frontier = [user for user in users if user.target in BETWEEN]


def _sum_behind(value: object, provenance: Mapping[Node, Results]) -> Node | None:
    """The sum over the samples that a scalar was made of."""
    if not isinstance(value, Node):
        return None
    for node in _behind(value, BETWEEN):
        found = provenance.get(node)
        if isinstance(found, SummedOverSamples):
            return found.origin
    return None


def _behind(value: Node, through: Collection[object] | None = None) -> Iterator[Node]:
    """A value and what it was made of, nearest first; only through some operators, if given."""
    seen = {value}
    frontier = [value]
    for _ in range(DEPTH):
        yield from frontier
        passed = [node for node in frontier if through is None or node.target in through]
        frontier = list(dict.fromkeys(x for node in passed for x in node.all_input_nodes if x not in seen))
        seen.update(frontier)


def _name(total: Node, provenance: Mapping[Node, Results]) -> str | None:
    """The function of `dpgraph.losses` that computes what was summed, for each sample."""
    behind = list(_behind(total))
    picks = [node for node in behind if node.target is aten.gather.default and _picks_one(node)]
    if picks:
        return _cross_entropy(picks[0], provenance)
    operators = [node.target for node in behind]
    if any(target in LOGISTIC for target in operators):
        return "dpgraph.losses.binary_cross_entropy"
    return "dpgraph.losses.mean_squared_error" if aten.pow.Tensor_Scalar in operators[:3] else None


LOGISTIC = {aten.log1p.default, aten.log_sigmoid_forward.default, aten.binary_cross_entropy_with_logits.default}


def _picks_one(node: Node) -> bool:
    """Whether a gather takes one element along its axis: the score of a sample's class."""
    dim, index = node.args[1:3]
    assert isinstance(dim, int) and isinstance(index, Node)
    size = index.meta["val"].shape[dim]
    return isinstance(size, int) and size == 1


def _cross_entropy(pick: Node, provenance: Mapping[Node, Results]) -> str:
    found, index = provenance[pick], pick.args[2]
    assert isinstance(index, Node)
    alone = isinstance(found, PerSample) and (found.outer, found.inner) == (1, 1) and pick.meta["val"].ndim == 2
    if alone:
        return "dpgraph.losses.cross_entropy"
    shifted = any(node.target is aten.slice.Tensor and _cuts_the_first(node) for node in _behind(index))
    if shifted:
        return "functools.partial(dpgraph.losses.token_cross_entropy, shift=True)"
    return "dpgraph.losses.token_cross_entropy"


def _cuts_the_first(node: Node) -> bool:
    return any(isinstance(start, int) and start > 0 for start in node.args[2:3])
