"""Sites as whole models meet them: the gradient of each sample, and by which ops it is made."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, check_exact, squares

DOUBLE = torch.float64


def fallbacks(module) -> list[str]:
    graph = list(module.graphs.values())[-1]
    return [node.name for node in graph.nodes if "map_over_samples" in str(node.target)]


class Plain(nn.Module):
    """Layers whose gradients all have rules, and a tail of a sum behind each: a bias, a scale, a transposition."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.convolution = nn.Conv1d(4, 3, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.layer(self.table(ids)) * self.scale)
        return self.convolution(x.mT) + (x @ (0.5 * self.layer.weight))[:, 1:, :3].mT


def test_plain_layers_need_no_fallback():
    module = check_exact(Plain().double(), torch.randint(7, (5, 3)))
    assert fallbacks(module) == []


def test_a_parameter_that_is_not_used_gets_no_site():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = Unused()
    dp_compile(model, "full", options=EAGER)(torch.randn(5, 4)).sum().backward()
    assert model.layer.weight.grad is not None
    assert model.other.weight.grad is None


class Positions(nn.Module):
    """A table of positions, of which as many are read as the samples are long."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.positions = nn.Parameter(torch.randn(20, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.positions[: x.shape[1]]


def test_a_length_that_is_a_symbol_is_a_length_of_every_sample():
    model = Positions().double()
    module = dp_compile(model, "full", options=EAGER)
    for length in (3, 5, 9):
        check_exact(model, torch.randn(4, length, 4, dtype=DOUBLE), module=module)


class Noise(nn.Module):
    """A layer of random numbers that were drawn for all positions at once, in one of two orders."""

    def __init__(self, positions_first: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.factor = nn.Parameter(torch.randn(4, 3))
        self.positions_first = positions_first

    def forward(self, x: Tensor) -> Tensor:
        num_samples, length = x.shape[:2]
        noise = torch.rand(num_samples * length, 4, dtype=x.dtype)
        y = self.layer(noise) + noise @ self.factor
        if self.positions_first:
            y = y * x.mT.transpose(0, 2).transpose(1, 2).reshape(-1, 3)
            return y.view(length, num_samples, 3).transpose(0, 1)
        return (y * x.reshape(-1, 3)).view(num_samples, length, 3)


@pytest.mark.parametrize("positions_first", [False, True])
def test_random_numbers_go_with_the_samples_that_used_them(positions_first):
    """What is not clipped is the ordinary gradient, under the same numbers."""
    model = Noise(positions_first).double()
    x = torch.randn(4, 5, 3, dtype=DOUBLE)
    torch.manual_seed(1)
    squares(model(x)).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    module = dp_compile(model, "full", clipping="abadi", max_grad_norm=1e6, options=EAGER)
    torch.manual_seed(1)
    squares(module(x)).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])
