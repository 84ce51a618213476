"""Gradients that go through products of parameters with parameters, in half precision."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, INDUCTOR


class RelativePositions(nn.Module):
    """A bias of attention that a small network makes of distances, as in Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.distances = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1, bias=False))
        self.register_buffer("table", torch.randn(9, 2))
        self.register_buffer("places", torch.randint(9, (3, 3)))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        bias = 16 * self.distances(self.table)[self.places.view(-1)].view(3, 3).sigmoid()
        return ((h @ h.mT + bias).softmax(-1) @ h).float().square().sum((1, 2))


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_a_network_that_makes_parameters(options):
    torch.manual_seed(0)
    model, x = RelativePositions().bfloat16(), torch.randn(5, 3, 4).bfloat16()
    exact = RelativePositions()
    exact.load_state_dict(model.state_dict())
    module = dp_compile(model, "full", clipping="abadi", max_grad_norm=1e6, options=options)
    module(x).sum().backward()
    exact(x.float()).sum().backward()
    for (name, found), expected in zip(model.named_parameters(), exact.parameters(), strict=True):
        distance = (found.grad.float() - expected.grad).norm() / expected.grad.norm()
        assert distance < 0.1, name
