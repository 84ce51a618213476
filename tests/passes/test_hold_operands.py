"""What norms and weighted sums both read is computed once, where the compiler would compute it in both."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, dp_compile

HELD = torch.ops.dpgraph.held_in_backward.default


class Layers(nn.Module):
    """Gradients of a product, of a scale and of a bias, behind a gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Losses [B] of x [B, 6]."""
        return self.last(nn.functional.gelu(self.norm(self.first(x)))).square().sum(1)


def held(module, x: Tensor) -> list:
    module(x).sum().backward()
    return [node for node in module.graphs["prune"].nodes if node.target is HELD]


def test_op_by_op_nothing_is_computed_twice():
    assert not held(dp_compile(Layers(), "full", options=CompileOptions(backend="eager")), torch.randn(3, 6))


@pytest.mark.inductor
def test_norms_and_sums_read_the_same_values():
    module = dp_compile(Layers(), "full")
    nodes = held(module, torch.randn(3, 6))
    assert nodes
    for node in nodes:
        assert len(node.users) > 1
        assert node.args[0].users.keys() == {node}, "somebody reads what would be computed anew"
