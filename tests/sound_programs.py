"""Programs of public code that keep the samples apart in a way that is not plain: each has to be exact.

Letters: B samples, T positions, D inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PROGRAMS", "Run", "SoundProgram", "bert_rows"]

B, T, D = 4, 3, 5


class Run(nn.Module):
    """`function(self, *args)`, with the modules, parameters and buffers that it reads."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(self, *args)


@dataclass(frozen=True)
class SoundProgram:
    """A program with batches on axis 0 of all inputs, unless `axes` says otherwise, and of the output."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], list[Tensor]]
    axes: tuple[int, ...] | None = None


PROGRAMS: dict[str, SoundProgram] = {}


def sound(name: str, inputs: Callable[[], list[Tensor]], axes: tuple[int, ...] | None = None, **parts: Any) -> Any:
    """Add a function of the module `m` and of the inputs; parts are made anew for each use."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make() -> nn.Module:
            return Run(function, **{part: made() for part, made in parts.items()})

        PROGRAMS[name] = SoundProgram(make, inputs, axes)
        return function

    return add


def rows(*shape: int) -> Callable[[], list[Tensor]]:
    return lambda: [torch.randn(B, *shape)]


def layer(num_inputs: int = D, num_outputs: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(num_inputs, num_outputs)


# Recurrent networks.


def recurrent(kind: Any, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: kind(D, 4, batch_first=True, **settings)


sound("LSTM on raw features", rows(2, D), r=recurrent(nn.LSTM, num_layers=2, bidirectional=True))(
    lambda m, x: m.r(x)[0]
)
sound("LSTM without biases", rows(2, D), r=recurrent(nn.LSTM, bias=False))(lambda m, x: m.r(x)[0])
sound("LSTM with a projection", rows(2, D), r=recurrent(nn.LSTM, proj_size=2))(lambda m, x: m.r(x)[0])
sound("last state of a GRU", rows(2, D), r=recurrent(nn.GRU, bidirectional=True))(
    lambda m, x: m.r(x)[1].transpose(0, 1)
)
sound("RNN", rows(2, D), r=recurrent(nn.RNN, nonlinearity="relu"))(lambda m, x: m.r(x)[0])


@sound(
    "LSTM with given states",
    lambda: [torch.randn(B, 2, D), torch.randn(1, B, 4), torch.randn(1, B, 4)],
    axes=(0, 1, 1),
    r=recurrent(nn.LSTM),
)
def _(m, x, h, c):
    outputs, (h, _) = m.r(x, (h, c))
    return outputs + h.transpose(0, 1)


@sound("GRU with a given state", lambda: [torch.randn(B, 2, D), torch.randn(1, B, 4)], axes=(0, 1), r=recurrent(nn.GRU))
def _(m, x, h):
    return m.r(x, h)[0]


# Inputs that are slices.


@sound("columns of a batch on axis 1", lambda: [torch.randn(D, 9)[:, :B]], axes=(1,), l=layer())
def _(m, x):
    return m.l(x.T)


@sound("every second sample", lambda: [torch.randn(2 * B, D)[::2], torch.randn(2 * B)[::2]], l=layer())
def _(m, x, y):
    return m.l(x) * y[:, None]


@sound("a slice of a time-first batch", lambda: [torch.randn(T, 2 * B, D).transpose(0, 1)[:B]], l=layer())
def _(m, x):
    return m.l(x)


@sound(
    "images in channels-last",
    lambda: [torch.randn(B, 2, 6, 8).to(memory_format=torch.channels_last)[..., :6]],
    c=lambda: nn.Conv2d(2, 3, 3),
)
def _(m, x):
    return m.c(x)


@sound("windows over a series", lambda: [torch.randn(B + 4).unfold(0, D, 1)], l=layer())
def _(m, x):
    return m.l(x)


# Several batches of samples in one.


def three() -> list[Tensor]:
    return [torch.randn(B, D) for _ in range(3)]


def margin(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return (a - p).square().sum(1) - (a - n).square().sum(1)


sound("triplets by chunk", three, l=layer())(lambda m, a, p, n: margin(*m.l(torch.cat([a, p, n])).chunk(3)))
sound("triplets by split", three, l=layer())(lambda m, a, p, n: margin(*m.l(torch.cat([a, p, n])).split(a.shape[0])))
sound("triplets by tensor_split", three, l=layer())(
    lambda m, a, p, n: margin(*m.l(torch.cat([a, p, n])).tensor_split(3))
)


@sound("triplets by sizes", three, l=layer())
def _(m, a, p, n):
    return margin(*m.l(torch.cat([a, p, n])).split([a.shape[0]] * 3))


@sound("two views, of which one is used", lambda: three()[:2], l=layer())
def _(m, a, b):
    return m.l(torch.cat([a, b])).chunk(2)[1]


@sound("two halves of a batch of pairs", lambda: three()[:2], l=layer())
def _(m, a, b):
    h = m.l(torch.cat([a, b]))
    return F.cosine_similarity(h[: a.shape[0]], h[a.shape[0] :].detach())


@sound("pairs side by side", rows(2, D), l=layer())
def _(m, x):
    h = m.l(x.flatten(0, 1))
    return h[0::2] - 2 * h[1::2].tanh()


# Functions whose operators hide it.


@sound("Bilinear", lambda: [torch.randn(B, D), torch.randn(B, T)], b=lambda: nn.Bilinear(D, T, 2))
def _(m, x, y):
    return m.b(x, y)


@sound("Bilinear of two rows", rows(2, D), b=lambda: nn.Bilinear(D, D, 2))
def _(m, x):
    return m.b(x[:, 0], x[:, 1])


def unpooled(convolution: Any, pool: Any, unpool: Any) -> dict[str, Any]:
    return {
        "c": lambda: convolution(2, 2, 3, padding=1),
        "p": lambda: pool(2, return_indices=True),
        "u": lambda: unpool(2),
    }


sound("MaxUnpool1d", rows(2, 6), **unpooled(nn.Conv1d, nn.MaxPool1d, nn.MaxUnpool1d))(lambda m, x: m.u(*m.p(m.c(x))))
sound("MaxUnpool2d", rows(2, 4, 4), **unpooled(nn.Conv2d, nn.MaxPool2d, nn.MaxUnpool2d))(lambda m, x: m.u(*m.p(m.c(x))))
sound("MaxUnpool3d", rows(2, 4, 4, 4), **unpooled(nn.Conv3d, nn.MaxPool3d, nn.MaxUnpool3d))(
    lambda m, x: m.u(*m.p(m.c(x)))
)


@sound("a spatial transformer", rows(1, 6, 5), l=layer(1, 6))
def _(m, x):
    theta = m.l(x.mean((2, 3))).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)


@sound("affine_grid of volumes", rows(D), l=layer(D, 12))
def _(m, x):
    return F.affine_grid(m.l(x).view(-1, 3, 4), [x.shape[0], 1, 3, 2, 2], align_corners=True)


# Rows of the flattened batch.


def places() -> list[Tensor]:
    return [torch.randn(B, T, D), torch.randint(0, T, (B, 2))]


def bert_rows(m: nn.Module, x: Tensor, offsets: Tensor) -> Tensor:
    """`gather_indexes` of the original BERT's masked language model."""
    h = m.l(x)
    num_samples, length, width = h.shape
    flat = (offsets + torch.arange(num_samples)[:, None] * length).view(-1)
    return h.reshape(num_samples * length, width)[flat].view(num_samples, -1, width)


sound("offsets into the flattened batch", places, l=layer())(bert_rows)
sound("offsets from the end", places, l=layer())(lambda m, x, i: bert_rows(m, x, i - T))
sound("offsets that are clamped", places, l=layer())(lambda m, x, i: bert_rows(m, x, i.clamp(0, x.shape[1] - 1)))
sound("the largest place as offset", places, l=layer())(lambda m, x, _: bert_rows(m, x, x.argmax(1)[:, :2]))


@sound("the last row of each sample, by index_select", places, l=layer())
def _(m, x, i):
    rows = torch.arange(x.shape[0]) * x.shape[1] + i[:, 0]
    return m.l(x).flatten(0, 1).index_select(0, rows)


def edges() -> list[Tensor]:
    return [torch.randn(B, T, D), torch.randint(0, T, (B, 2, 6))]


@sound("messages along the edges of graphs in one batch, by index_add", edges, l=layer())
def _(m, x, edges):
    first = torch.arange(x.shape[0])[:, None] * x.shape[1]
    source, target = ((edges[:, k] + first).flatten() for k in range(2))
    h = m.l(x).flatten(0, 1)
    return torch.zeros_like(h).index_add(0, target, h[source]).view(x.shape[0], -1)


@sound("messages along the edges of graphs in one batch, by scatter_add", edges, l=layer())
def _(m, x, edges):
    first = torch.arange(x.shape[0])[:, None] * x.shape[1]
    source, target = ((edges[:, k] + first).flatten()[:, None].expand(-1, 4) for k in range(2))
    h = m.l(x).flatten(0, 1)
    return torch.zeros_like(h).scatter_add(0, target, h.gather(0, source)).view(x.shape[0], -1)


@sound("a margin at the class of each sample", lambda: [torch.randn(B, D), torch.randint(0, 4, (B,))], l=layer())
def _(m, x, y):
    scores, own = m.l(x), torch.arange(x.shape[0])
    scores[own, y] = scores[own, y] - 0.3
    return scores


# A kernel for each sample.


def styled() -> list[Tensor]:
    return [torch.randn(B, 3, 4, 4), torch.randn(B, D)]


def style(m: nn.Module, s: Tensor) -> Tensor:
    """StyleGAN2's modulated and demodulated kernels [B, o, c, k, k]."""
    kernels = m.w * m.l(s)[:, None, :, None, None]
    return kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()


KERNEL = {"l": layer(D, 3), "w": lambda: nn.Parameter(torch.randn(2, 3, 3, 3))}


@sound("modulated convolution", styled, **KERNEL)
def _(m, x, s):
    n, c, *space = x.shape
    return F.conv2d(x.view(1, n * c, *space), style(m, s).view(-1, c, 3, 3), padding=1, groups=n).view(n, 2, *space)


@sound("modulated convolution that scales up", styled, **KERNEL)
def _(m, x, s):
    n, c, h, w = x.shape
    kernels = style(m, s).transpose(1, 2).reshape(n * c, 2, 3, 3)
    return F.conv_transpose2d(x.view(1, n * c, h, w), kernels, stride=2, groups=n).view(n, 2, 2 * h + 1, 2 * w + 1)


@sound(
    "cross-correlation of two images, channel by channel",
    lambda: [torch.randn(B, 2, 6, 6), torch.randn(B, 2, 3, 3)],
    c=lambda: nn.Conv2d(2, 3, 1),
)
def _(m, x, z):
    image, kernel = m.c(x), m.c(z)
    n, c = image.shape[:2]
    return F.conv2d(image.view(1, n * c, 6, 6), kernel.view(n * c, 1, 3, 3), groups=n * c).view(n, c, 4, 4)


# What is written where a mask is true.


def masked() -> list[Tensor]:
    return [torch.randn(B, T, D), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).bool()]


@sound("scores of padding", masked, l=layer())
def _(m, x, mask):
    scores = m.l(x).sum(2)
    scores[mask] = -1e9
    return scores.softmax(1)


@sound("a mask token", masked, l=layer(), token=lambda: nn.Parameter(torch.randn(D)))
def _(m, x, mask):
    x = x * 1
    x[mask] = m.token
    return m.l(x)


@sound("some places from another value", masked, l=layer())
def _(m, x, mask):
    h = m.l(x)
    other = h.tanh()
    h[mask] = other[mask]
    return h
