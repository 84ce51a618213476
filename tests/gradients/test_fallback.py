"""An op that is mapped over the samples gets all its other arguments as they were, sizes that are symbols too."""

import pytest
import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.fallback import map_over_samples
from dpgraph.gradients.registry import PerSampleTensor
from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, trace

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("op", "args", "kwargs"),
    [
        (aten._to_copy.default, (), {"dtype": torch.bfloat16, "device": torch.device("cpu"), "layout": torch.strided}),
        (aten.clone.default, (), {"memory_format": torch.contiguous_format}),
        (aten.clamp.default, (None, 0.25), {}),
        (aten.sum.dim_IntList, ([0, 1], True), {"dtype": torch.float32}),
        (aten.div.Tensor_mode, (torch.full((3, 1), 0.5),), {"rounding_mode": "floor"}),
    ],
    ids=lambda x: str(x) if isinstance(x, torch._ops.OpOverload) else "",
)
def test_arguments_of_every_type_come_through(op, args, kwargs):
    x = torch.randn(4, 3, 2)
    found = map_over_samples(op, (PerSampleTensor(x), *args), kwargs)
    assert isinstance(found, Dense)
    expected = torch.stack([op(x[b], *args, **kwargs) for b in range(4)])
    assert found.g.dtype == expected.dtype
    torch.testing.assert_close(found.g, expected, rtol=0, atol=0)


def test_several_operands_and_sizes_keep_their_places():
    def windows(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        # [B, 9] in which x_b + v stands from the first size on, as far as the second one says
        whole, part = PerSampleTensor(y), PerSampleTensor(x)
        added = map_over_samples(aten.addcmul.default, (part, w, v), {"value": 2})
        assert isinstance(added, Dense)
        start, end = x.shape[1], y.shape[1] - 1
        placed = map_over_samples(aten.slice_scatter.default, (whole, PerSampleTensor(added.g), 0, start, end), {})
        assert isinstance(placed, Dense)
        return placed.g

    def values(num_samples: int, size: int) -> list[Tensor]:
        torch.manual_seed(size)
        shapes = [(num_samples, size), (num_samples, 2 * size + 1), (size,), (size,)]
        return [torch.randn(shape, dtype=torch.float64) for shape in shapes]

    mode = FakeTensorMode(shape_env=ShapeEnv())
    like = values(3, 4)
    for x, axes in zip(like, [(0, 1), (0, 1), (0,), (0,)], strict=True):
        for axis in axes:
            torch._dynamo.mark_dynamic(x, axis)
    with mode:
        graph = trace(windows, [mode.from_tensor(x) for x in like])
    for x, y, w, v in (values(3, 4), values(5, 6)):
        expected = y.clone()
        size = x.shape[1]
        expected[:, size : 2 * size] = x + 2 * w * v
        torch.testing.assert_close(graph(x, y, w, v), expected)


def test_a_device_comes_through():
    x = PerSampleTensor(torch.randn(4, 3))
    found = map_over_samples(aten._to_copy.default, (x,), {"device": torch.device("meta")})
    assert isinstance(found, Dense)
    assert found.g.device.type == "meta"


def test_an_argument_of_another_type_is_an_error():
    with pytest.raises(TypeError, match="set"):
        map_over_samples(aten.sum.dim_IntList, (PerSampleTensor(torch.ones(2, 3)), {0}), {})


def test_a_result_that_is_missing_is_none():
    x, grad, weight = torch.randn(2, 1, 3, 5), torch.randn(2, 1, 4, 5), torch.randn(4, 3, 1)
    args = (weight, [4], [1], [0], [1], False, [0], 1, [True, False, True])
    found = map_over_samples(aten.convolution_backward.default, (PerSampleTensor(grad), PerSampleTensor(x), *args), {})
    assert isinstance(found, tuple)
    assert [form is None for form in found] == [False, True, False]


def test_results_have_the_strides_that_a_compiler_is_told():
    x = torch.randn(4, 3, 2).mT
    results = map_over_samples(aten.tanh.default, (PerSampleTensor(x),), {})
    with FakeTensorMode() as mode:
        told = map_over_samples(aten.tanh.default, (PerSampleTensor(mode.from_tensor(x)),), {})
    assert isinstance(results, Dense)
    assert isinstance(told, Dense)
    assert results.g.stride() == told.g.stride()
