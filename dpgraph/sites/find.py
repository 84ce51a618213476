"""Find where the samples disappear on the way to each trained parameter's gradient."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.provenance.lattice import SummedOverSamples
from dpgraph.provenance.registry import Results

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True, slots=True)
class Site:
    """The part of the backward between values that samples own and one parameter's gradient.

    Attributes:
        parameter: name of the parameter.
        gradient: name of the node of its gradient.
        slice: names of the nodes that hold sums over the samples, in the order of the graph; the last is `gradient`.
        frontier: names of the tensors and sizes they read.
    """

    parameter: str
    gradient: str
    slice: tuple[str, ...]
    frontier: tuple[str, ...]


def find_sites(joint: JointGraph, provenance: Mapping[Node, Results], trained: Iterable[str]) -> tuple[Site, ...]:
    """One site for each trained parameter that gets a gradient from the samples."""
    sites = []
    for name in trained:
        gradient = joint.gradient_of(name) if name in joint.gradients else None
        if gradient is not None and _is_sum(provenance[gradient]):
            summed, frontier = _backward_slice(gradient, provenance)
            in_order, reads = (tuple(n.name for n in sorted(nodes)) for nodes in (summed, frontier))
            sites.append(Site(name, gradient.name, in_order, reads))
    return tuple(sites)


def _is_sum(found: Results) -> bool:
    return any(isinstance(p, SummedOverSamples) for p in (found if isinstance(found, tuple) else (found,)))


def _backward_slice(gradient: Node, provenance: Mapping[Node, Results]) -> tuple[set[Node], set[Node]]:
    """Nodes from which sums over the samples lead to `gradient`, and all others that they read."""
    summed, frontier, todo = set[Node](), set[Node](), [gradient]
    while todo:
        node = todo.pop()
        if node in summed:
            continue
        summed.add(node)
        for operand in node.all_input_nodes:
            if _is_sum(provenance[operand]):
                todo.append(operand)
            else:
                frontier.add(operand)
    return summed, frontier
