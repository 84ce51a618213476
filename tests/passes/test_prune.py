"""What no trained parameter's gradient is made of is not computed."""

import pytest
import torch
from torch import nn

from dpgraph import CompileOptions
from tests.programs.exact import check_exact

CONVOLUTION = torch.ops.aten.convolution_backward.default


class Convolutions(nn.Module):
    """Two convolutions over images of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 2, H - 2, W - 2] of images [B, 1, H, W]."""
        return self.second(torch.tanh(self.first(x)))


def masks(mode: str, norm_strategy: str) -> list[list[bool]]:
    """Which of their results the backwards of convolutions compute, after pruning."""
    options = CompileOptions(backend="eager", norm_strategy=norm_strategy)
    images = torch.randn(3, 1, 9, 9, dtype=torch.float64)
    model = check_exact(Convolutions().double(), images, mode=mode, options=options)
    nodes = model.graphs["prune"].find_nodes(op="call_function", target=CONVOLUTION)
    for node in nodes:
        assert [value is not None for value in node.meta["val"]] == node.args[-1]
    return sorted(node.args[-1] for node in nodes)


def test_an_untrained_weight_has_no_gradient_in_a_backward_that_is_needed():
    assert masks("bitfit", "auto") == [[True, False, False]]


@pytest.mark.parametrize("norm_strategy", ["ghost", "materialise"])
def test_a_weight_has_no_gradient_beside_its_weighted_sum(norm_strategy):
    sums = [[False, True, False]] * (2 if norm_strategy == "ghost" else 0)
    assert masks("full", norm_strategy) == [*sums, [True, False, False]]
