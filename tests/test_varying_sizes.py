"""Texts of several lengths and images of several sizes: from the second on, sizes are symbols beside that of the batch.

Programs that split a length into windows, or enlarge what they have made smaller, are right for some sizes alone; what
they take for granted is in the guards of the capture.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from dpgraph import UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact

D = 4


class Texts(nn.Module):
    """[B, T, d] to [B, T, d], between two layers and beside a raw parameter."""

    lengths = (16, 12, 20)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(D, D), nn.Linear(D, D)
        self.weights = nn.Parameter(torch.randn(D))

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self.first(x), *x.shape)
        return self.last(h + x) * (h @ self.weights)[..., None]

    def between(self, h: Tensor, B: int, T: int, d: int) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def batch(num_samples: int, length: int) -> Tensor:
        return torch.randn(num_samples, length, D, dtype=torch.float64)


class Images(nn.Module):
    lengths = (16, 12, 20)

    @staticmethod
    def batch(num_samples: int, length: int) -> Tensor:
        return torch.randn(num_samples, 1, length, length + 4, dtype=torch.float64)


class Windows(Texts):
    def between(self, h, B, T, d):
        return h.view(B, T // 4, 4, d).softmax(2).reshape(B, T, d)


class WindowsOfUnknownNumber(Texts):
    def between(self, h, B, T, d):
        return h.unflatten(1, (-1, 4)).softmax(2).flatten(1, 2)


class WindowsAsSamples(Texts):
    def between(self, h, B, T, d):
        return h.reshape(B * (T // 4), 4, d).softmax(1).reshape(B, T, d)


class EveryFourth(Texts):
    def between(self, h, B, T, d):
        h = h.reshape(B, T // 4, 4, d).permute(0, 2, 1, 3).reshape(B * 4, T // 4, d)
        return self.last(h).reshape(B, 4, T // 4, d).permute(0, 2, 1, 3).reshape(B, T, d)


class WindowsThatSeeTheOneBefore(Texts):
    def between(self, h, B, T, d):
        windows = h.view(B, T // 4, 4, d)
        before = torch.cat([torch.zeros_like(windows[:, :1]), windows[:, :-1]], 1)
        keys = torch.cat([before, windows], 2)
        return scaled_dot_product_attention(windows, keys, keys).reshape(B, T, d)


class Halves(Texts):
    def between(self, h, B, T, d):
        first, second = h.view(B, 2, T // 2, d).unbind(1)
        return torch.cat([first * second.tanh(), second], 1)


class Enlarges(Images):
    """What was made smaller twice, by strides, is made larger and meets what it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.smaller = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.larger, self.last = nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False), nn.Conv2d(4, 2, 3, padding=1)
        self.norm = nn.InstanceNorm2d(2, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.small(x)).relu()
        return self.last(torch.cat([h, self.norm(self.larger(self.smaller(h)))], 1))


class Interpolates(Images):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.last = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(interpolate(self.small(x), size=x.shape[2:], mode="bilinear") * x)


class Patches(Images):
    """A class token before patches of 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, D, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, D))
        self.positions = nn.Parameter(torch.randn(1, 40, D))
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)
        self.head = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1)
        h = h + self.positions[:, : h.shape[1]]
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(h)[:, 0]


class AttendsToPixels(Images):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.norm = nn.Conv2d(1, D, 3, stride=2, padding=1), nn.GroupNorm(2, D)
        self.queries, self.last = nn.Linear(D, 3 * D), nn.ConvTranspose2d(D, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.small(x)
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        found = scaled_dot_product_attention(*self.queries(tokens).chunk(3, -1))
        return self.last(h + found.transpose(1, 2).reshape(h.shape)) * x


class AttendsAlongAxes(Images):
    """Rows first, so that the samples lie between two axes of sizes that vary."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        rows_first = x.transpose(0, 1)
        return x * self.last(self.first(rows_first).softmax(0).tanh()).transpose(0, 1)

    @staticmethod
    def batch(num_samples: int, length: int) -> Tensor:
        return torch.randn(num_samples, length, length + 4, D, dtype=torch.float64)


class AttendsAlongWindows(AttendsAlongAxes):
    """As many outer rows as there are windows."""

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, d = x.shape
        windows_first = x.view(B, H // 4, 4, W, d).permute(1, 0, 3, 2, 4)
        h = self.last(self.first(windows_first).softmax(0).tanh())
        return x * h.permute(1, 0, 3, 2, 4).reshape(B, H, W, d)


@pytest.mark.parametrize(
    "kind",
    [
        AttendsAlongAxes,
        AttendsAlongWindows,
        Windows,
        WindowsOfUnknownNumber,
        WindowsAsSamples,
        EveryFourth,
        WindowsThatSeeTheOneBefore,
        Halves,
        Enlarges,
        Interpolates,
        Patches,
        AttendsToPixels,
    ],
)
@pytest.mark.parametrize("mode", ["full", "bitfit"])
def test_sizes_that_vary(kind, mode):
    model = kind().double()
    module = dp_compile(model, mode, options=EAGER)
    for num_samples, length in zip((3, 5, 2), kind.lengths, strict=True):
        check_exact(model, kind.batch(num_samples, length), module=module)


class MixesHalves(Texts):
    """Rows that belong to two samples where there are two to a sample: [B, T] is read as [2, B * T / 2]."""

    def between(self, h, B, T, d):
        first, second = h.reshape(2, B, T // 2, d).unbind(0)
        return torch.cat([first * second.tanh(), second], 1)


class MixesWindows(Texts):
    def between(self, h, B, T, d):
        return h.reshape(T // 4, B * 4, d).softmax(1).reshape(B, T, d)


class BranchesOnLong(Texts):
    """One branch for all batches of texts of 4, the other for all of 7; of 6 it depends on how many there are."""

    lengths = (4, 7, 6)

    def between(self, h, B, T, d):
        return 2 * h if B * (T - 5) > 3 else h


class BranchesOnRemainder(Texts):
    def between(self, h, B, T, d):
        return 2 * h if (B * T) % 8 == 0 else h


class BranchesOnSquare(Texts):
    lengths = (4, 5, 3)

    def between(self, h, B, T, d):
        return 2 * h if B < T else h


@pytest.mark.parametrize("kind", [MixesHalves, MixesWindows, BranchesOnLong, BranchesOnRemainder, BranchesOnSquare])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_samples_that_meet_at_some_size_are_refused(kind, first):
    """At whichever size comes first, or second."""
    module = dp_compile(kind().double(), "full", options=EAGER)
    with pytest.raises(UnsoundProgramError):  # noqa: PT012  one of the calls is refused, all others would be accepted
        for length in kind.lengths[first:] + kind.lengths[:first]:
            for num_samples in (3, 5):
                module(kind.batch(num_samples, length)).sum().backward()
