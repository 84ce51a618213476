"""Tensors of one number are tensors: what is written into them stays, and what is read from them is what they hold."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, INDUCTOR


class Counters(nn.Module):
    """Numbers of every kind that are written, some that nothing reads, one that Python reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)
        for dtype in (torch.float64, torch.float32, torch.int64):
            for name in ("calls", "scale", "both"):
                self.register_buffer(self.named(name, dtype), torch.ones((), dtype=dtype))
        self.register_buffer("read", torch.ones((), dtype=torch.float64))

    @staticmethod
    def named(name: str, dtype: torch.dtype) -> str:
        return f"{name}_{dtype}".replace(".", "_")

    def forward(self, x: Tensor, rate: float) -> Tensor:
        y = self.layer(x)
        for dtype in (torch.float64, torch.float32, torch.int64):
            self.get_buffer(self.named("calls", dtype)).add_(1)
            scale = self.get_buffer(self.named("scale", dtype))
            scale.mul_(3)
            y = y * scale
            both = self.get_buffer(self.named("both", dtype))
            both.mul_(2).sub_(3)
        self.read.add_(0.25)
        return y * rate * self.read.item()


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_numbers_that_are_written(options):
    model = Counters()
    plain, module = copy.deepcopy(model), dp_compile(model, "full", options=options)
    for num_samples, rate in ((5, 0.5), (3, 0.25), (4, 0.125)):
        x = torch.randn(num_samples, 4, dtype=torch.float64)
        torch.testing.assert_close(module(x, rate), plain(x, rate), rtol=1e-12, atol=1e-12)
        assert dict(model.named_buffers()) == dict(plain.named_buffers())
