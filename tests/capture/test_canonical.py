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


def scattered(size: list[int], stride: list[int], offset: int = 0) -> object:
    """What becomes of an `as_strided_scatter` of 12 zeros."""
    graph = Graph()
    whole, part = graph.placeholder("whole"), graph.placeholder("part")
    whole.meta["val"], part.meta["val"] = torch.zeros(12), torch.arange(1.0, 1 + torch.Size(size).numel()).view(size)
    node = graph.call_function(aten.as_strided_scatter.default, (whole, part, size, stride, offset))
    node.meta["val"] = expected = node.target(whole.meta["val"], part.meta["val"], size, stride, offset)
    graph.output(node)
    canonicalise(graph)
    values = {whole: whole.meta["val"], part: part.meta["val"]}
    args = tuple(values.get(x, x) if isinstance(x, torch.fx.Node) else x for x in node.args)
    torch.testing.assert_close(node.target(*args), expected)
    return node.target


def test_a_scatter_that_replaces_everything_is_a_view() -> None:
    assert scattered([3, 4], [4, 1]) is aten.view.default
    assert scattered([3, 1, 4], [4, 9, 1]) is aten.view.default


def test_other_scatters_stay() -> None:
    assert scattered([3, 4], [1, 3]) is aten.as_strided_scatter.default
    assert scattered([2, 4], [4, 1]) is aten.as_strided_scatter.default
    assert scattered([2, 4], [4, 1], 4) is aten.as_strided_scatter.default


def test_true_division_is_division() -> None:
    assert canonical(aten.true_divide.Tensor, torch.ones(2), 3) is aten.div.Tensor
