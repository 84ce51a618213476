"""Find the operator that is compiled wrongly: compile parts of a graph alone, and halve the part that is wrong."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.validate.draws import is_random

__all__ = ["Part", "find_first_wrong"]

# Values of nodes -> values of the outputs.
Compile = Callable[[GraphModule], Callable[[list[Any]], Sequence[Any]]]
# The nodes that differ among those that a part returns, given the inputs that it reads and what it made of them.
Wrong = Callable[["Part"], list[Node]]


class Part:
    """Some nodes of a graph as a graph of its own, which reads the values of others.

    Attributes:
        reads: nodes whose values go in.
        returns: nodes whose values come out: those that the rest reads.
        module: the graph.
    """

    def __init__(self, joint: JointGraph, nodes: Sequence[Node], wanted: set[Node]) -> None:
        inside = set(nodes) | _sizes_read_by(nodes)
        sources = {x for n in inside for x in n.all_input_nodes} | _sources_of_sizes(joint)
        self.reads = [n for n in joint.graph.nodes if n in sources and n not in inside]
        self.returns = [n for n in nodes if isinstance(n.meta.get("val"), Tensor) and _is_read(n, inside, wanted)]
        graph = Graph()
        copies: dict[Node, Node] = {}
        for read in self.reads:
            copies[read] = graph.placeholder(read.name)
            copies[read].meta = dict(read.meta)
        for n in joint.graph.nodes:
            if n in inside:
                copies[n] = graph.node_copy(n, copies.__getitem__)
        graph.output([copies[n] for n in self.returns])
        self.module = GraphModule(joint.module, graph)


def find_first_wrong(joint: JointGraph, differing: Sequence[Node], wrong: Wrong) -> Node | None:
    """The first node that a part of the graph computes wrongly; None if no part alone is wrong.

    The part that holds all is halved as long as a half is wrong by itself. If none is, what is wrong starts in the one
    half and shows in the other, and the place where it shows first is looked for.

    Args:
        joint: the graph.
        differing: nodes whose values are wrong.
        wrong: the nodes that a part computes wrongly.
    """
    nodes = _ancestors(joint, differing)
    wanted = set(differing)

    def found(first: int, last: int) -> list[Node]:
        part = nodes[first : last + 1]
        results = [x for n in part for x in n.users if x.target is operator.getitem]
        return wrong(Part(joint, [*part, *results], wanted))

    first, last = 0, len(nodes) - 1
    here = found(first, last) if nodes else []
    if not here:
        return None
    while first < last:
        middle = (first + last) // 2
        if in_half := found(first, middle):
            last, here = middle, in_half
        elif in_half := found(middle + 1, last):
            first, here = middle + 1, in_half
        else:
            return _where_it_shows(found, first, middle + 1, last, here)
    return here[0]


def _where_it_shows(found: Callable[[int, int], list[Node]], first: int, low: int, high: int, here: list[Node]) -> Node:
    while low < high:
        middle = (low + high) // 2
        if shown := found(first, middle):
            high, here = middle, shown
        else:
            low = middle + 1
    return here[0]


def _ancestors(joint: JointGraph, differing: Sequence[Node]) -> list[Node]:
    """Operators that lead to some nodes, in order; random ones are inputs, and so are what leads to them alone."""
    needed: set[Node] = set()
    waiting = list(differing)
    while waiting:
        n = waiting.pop()
        if n in needed or n.op != "call_function" or is_random(n) or not _holds_tensors(n):
            continue
        needed.add(n)
        waiting.extend(n.all_input_nodes)
    return [n for n in joint.graph.nodes if n in needed and n.target is not operator.getitem]


def _holds_tensors(n: Node) -> bool:
    return isinstance(n.meta.get("val"), (Tensor, tuple, list))


def _sizes_read_by(nodes: Sequence[Node]) -> set[Node]:
    """Sizes and constants that nodes read, with all that computes them: a part has its own."""
    sizes: set[Node] = set()
    waiting = [x for n in nodes for x in n.all_input_nodes]
    while waiting:
        n = waiting.pop()
        if n not in sizes and (n.op == "get_attr" or (n.op == "call_function" and not _holds_tensors(n))):
            sizes.add(n)
            waiting.extend(n.all_input_nodes)
    return sizes


def _sources_of_sizes(joint: JointGraph) -> set[Node]:
    """Inputs that are sizes, and the probe, whose rows are the batch."""
    return {n for n in joint.graph.find_nodes(op="placeholder") if not _holds_tensors(n) or n.name == joint.probe}


def _is_read(n: Node, inside: set[Node], wanted: set[Node]) -> bool:
    return n in wanted or any(user not in inside for user in n.users)
