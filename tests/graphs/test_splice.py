"""The one function that makes nodes."""

import pytest
import torch
from torch.fx import Graph, GraphModule, Node

from dpgraph.graphs.splice import splice
from dpgraph.torch_compat import FakeTensorMode


def graph_of(*values: torch.Tensor) -> tuple[Graph, list[Node]]:
    """A graph with a placeholder for each value, and its output."""
    graph, mode = Graph(), FakeTensorMode()
    fakes = {id(v): mode.from_tensor(v) for v in values}
    nodes = []
    for i, value in enumerate(values):
        nodes.append(graph.placeholder(f"x{i}"))
        nodes[-1].meta["val"] = fakes[id(value)]
    return graph, nodes


def test_results_come_in_order_and_one_may_be_an_operand():
    x, y = torch.randn(3), torch.randn(3)
    graph, nodes = graph_of(x, y)
    results = splice(graph, lambda a, b: [a - b, b, b * 2], nodes)
    assert results[1] is nodes[1]
    graph.output(tuple(results))
    for found, expected in zip(GraphModule({}, graph)(x, y), (x - y, y, y * 2), strict=True):
        torch.testing.assert_close(found, expected)


def test_one_node_may_be_two_operands():
    x = torch.randn(3)
    graph, (node,) = graph_of(x)
    (result,) = splice(graph, lambda a, b: a + 2 * b, [node, node])
    graph.output(result)
    torch.testing.assert_close(GraphModule({}, graph)(x), 3 * x)


def test_two_operands_with_one_fake_value_are_an_error():
    x = torch.randn(3)
    graph, nodes = graph_of(x, x)
    with pytest.raises(AssertionError, match="share a fake value"):
        splice(graph, lambda a, b: a - b, nodes)


def test_every_step_stands_as_early_as_it_can():
    x, y = torch.randn(3), torch.randn(3)
    graph, (a, b) = graph_of(x, y)
    (first,) = splice(graph, torch.exp, [a])
    (late,) = splice(graph, torch.neg, [first])
    splice(graph, lambda p, q: p.sin() + q, [b, late])
    order = [str(node.target).split(".")[1] for node in graph.nodes if node.op == "call_function"]
    assert order.index("sin") < order.index("neg") < order.index("add")
