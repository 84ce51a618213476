"""The one function that creates nodes: trace a torch function on fake values and put it into a graph."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import SymInt
from torch.fx import Graph, Node

from dpgraph.torch_compat import FakeTensor, trace, tree_leaves

__all__ = ["splice"]


def splice(graph: Graph, function: Callable[..., Any], operands: Sequence[Node]) -> list[Node]:
    """Insert `function(*operands)`, each step as soon as what it reads is there.

    Args:
        graph: the graph that is being built.
        function: plain torch code on the operands' values, whose result is a tensor or several.
        operands: nodes of the graph, tensors or sizes; a tensor at least.

    Returns:
        The nodes of the results.
    """
    values = [x.meta["val"] for x in operands]
    assert all(isinstance(v, (FakeTensor, SymInt)) for v in values), "operands need fake values"
    tensors = {id(v): x for v, x in zip(values, operands, strict=True) if isinstance(v, FakeTensor)}
    # the tracer knows operands by their fake values: of two with one value it would read the last
    assert all(tensors.get(id(v), x) is x for v, x in zip(values, operands, strict=True)), "operands share a fake value"
    mode = next(v.fake_mode for v in values if isinstance(v, FakeTensor))
    with mode:
        traced = trace(function, values)
    traced.graph.eliminate_dead_code()
    copies: dict[Node, Any] = dict(zip([n for n in traced.graph.nodes if n.op == "placeholder"], operands, strict=True))
    start = graph.find_nodes(op="placeholder")[-1]
    for node in traced.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        assert node.op == "call_function", f"{node.op} {node.target} cannot be spliced"
        with graph.inserting_after(max([start, *(copies[x] for x in node.all_input_nodes)])):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return [copies[result] for result in tree_leaves(traced.graph.output_node().args)]
