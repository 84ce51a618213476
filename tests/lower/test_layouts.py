"""Images and sequences whose size varies, reordered between convolutions, of which Inductor chooses the layouts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, INDUCTOR, check_exact


class Reordered(nn.Module):
    """Channels that are shuffled, pixels that become channels, and steps of a sequence, each before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shuffled = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)
        self.unshuffled = nn.Conv2d(16, 2, 1)
        self.early, self.late = nn.Conv1d(2, 2, 3, padding=2, dilation=2), nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffled(F.channel_shuffle(self.first(x), 2))
        y = self.unshuffled(F.pixel_unshuffle(y, 2)).mean(2)
        return self.late(self.early(y).tanh()).amax(2)


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_sizes_that_vary(options):
    model = Reordered().double()
    module = dp_compile(model, "full", options=options)
    for height, width in ((6, 4), (8, 10), (2, 6)):
        check_exact(model, torch.randn(3, 2, height, width, dtype=torch.float64), module=module)
