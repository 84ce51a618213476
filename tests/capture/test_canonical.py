import torch
from torch.fx import Graph

from dpgraph.capture.canonical import canonicalise

aten = torch.ops.aten


def canonical(op: object, operand: torch.Tensor, *args: object) -> object:
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = operand
    node = graph.call_function(op, (x, *args))
    node.meta["val"] = op(operand, *args)
    canonicalise(graph)
    return node.target


def test_strides_that_only_reshape_are_a_view() -> None:
    assert canonical(aten.as_strided.default, torch.zeros(4, 2, 1), [8], [1]) is aten.view.default
    assert canonical(aten.as_strided.default, torch.zeros(4, 2), [2, 1, 4], [4, 4, 1], 0) is aten.view.default


def test_other_strides_stay() -> None:
    transposed = torch.zeros(2, 4).t()
    shifted = torch.zeros(9)[1:]
    for operand, *args in (
        (torch.zeros(4, 2), [2, 4], [1, 2]),
        (torch.zeros(4, 2), [4], [1]),
        (torch.zeros(4, 2), [4], [1], 4),
        (transposed, [8], [1]),
        (shifted, [8], [1]),
    ):
        assert canonical(aten.as_strided.default, operand, *args) is aten.as_strided.default


def test_true_division_is_division() -> None:
    assert canonical(aten.true_divide.Tensor, torch.ones(2), 3) is aten.div.Tensor
