"""Each group's weights are computed when its norms are known, unless the clipping function compares groups."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, dp_compile
from dpgraph.errors import ArgumentError

EAGER = CompileOptions(backend="eager")


class Elementwise:
    """R / (1 + n), and 0 for small ones."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return torch.where(norm < 0.1, 0, max_norm / (1 + norm))

    def bound(self, max_norm: float) -> float:
        return max_norm


class ByLargest(Elementwise):
    """R / (1 + the largest of the groups' norms)."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return (max_norm / (1 + norm.amax(-1, keepdim=True))).expand_as(norm)


class ByPosition(Elementwise):
    """R / (1 + n), less for later groups."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return max_norm / (1 + norm) / torch.arange(1, 1 + norm.shape[-1], dtype=norm.dtype)


class ByNumber(Elementwise):
    """R / (1 + n) / K, the number of groups."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return max_norm / (1 + norm) / norm.shape[-1]


def layers(width: int, count: int) -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(count)))


@pytest.mark.parametrize(
    "clipping", [Elementwise(), ByLargest(), ByPosition(), ByNumber()], ids=lambda c: type(c).__name__
)
def test_what_a_clipping_function_does_with_several_groups(clipping):
    model = layers(5, 3).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    module = dp_compile(model, "full", clipping=clipping, grouping="per-layer", options=EAGER)
    module(x).square().sum().backward()
    found = [p.grad for p in model.parameters()]
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for sample in x:
        gradients = torch.autograd.grad(model(sample[None]).square().sum(), list(model.parameters()))
        norms = torch.stack([g.square().sum() for g in gradients]).reshape(3, 2).sum(1).sqrt()
        factors = clipping.factor(norms[None], 1 / 3**0.5)[0]
        for i, gradient in enumerate(gradients):
            expected[i] += factors[i // 2] * gradient
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


class ByTable(Elementwise):
    """R / (1 + n), by a table of numbers."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return max_norm / (1 + norm) * torch.tensor([0.5, 1.0, 0.25], dtype=norm.dtype)


def test_a_clipping_function_has_no_tensors_of_its_own():
    module = dp_compile(layers(5, 3), "full", clipping=ByTable(), grouping="per-layer", options=EAGER)
    with pytest.raises(ArgumentError, match="a tensor of its own"):
        module(torch.randn(4, 5))


def peak(grouping: str, clipping: str) -> int:
    options = CompileOptions(backend="eager", norm_strategy="ghost")
    module = dp_compile(layers(128, 8), "full", clipping=clipping, grouping=grouping, options=options)
    module(torch.randn(32, 32, 128)).sum().backward()
    return module.report.memory.peak()


def test_a_group_holds_nothing_until_other_groups_norms_are_known():
    flat = peak("flat", "auto-s")
    assert peak("per-layer", "auto-s") < 0.8 * flat
    assert peak("per-param", "abadi") < 0.8 * flat
    assert peak("per-layer", "auto-v") > 0.95 * flat


@pytest.mark.parametrize("grouping", ["flat", "per-layer"])
def test_every_sum_reads_the_weights_from_where_they_were_computed_once(grouping):
    module = dp_compile(layers(4, 3), "full", grouping=grouping, options=EAGER)
    module(torch.randn(2, 4)).sum().backward()
    graph = module.graphs["prune"]
    weights = graph.find_nodes(op="call_function", target=torch.ops.dpgraph.computed_once.default)
    assert len(weights) == (1 if grouping == "flat" else 3)
    factors = {x for w in weights for x in w.all_input_nodes}
    assert all(set(x.users) <= set(weights) for x in factors)
