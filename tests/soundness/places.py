"""Pairs of programs: samples in other places."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.soundness.pair import pair


@pair("the first sample")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h - h[0]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h - h[:, :1]


@pair("samples picked by value")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h + h[(x[:, 0] > 0).long()]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h + m.layer.weight[(x[:, 0] > 0).long()]


@pair("shuffle of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * h[torch.randperm(x.shape[0])]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h * h[torch.arange(x.shape[0])]


@pair("mixup")
class _:
    def unsound(m, x):
        other = torch.cat([x[1:], x[:1]])  # mixes
        return m.layer(0.7 * x + 0.3 * other)

    def sound(m, x):
        other = torch.cat([x[:, 1:], x[:, :1]], 1)
        return m.layer(0.7 * x + 0.3 * other)


@pair("index_select along the batch", places=lambda: torch.tensor([0, 0, 1]))
class _:
    def unsound(m, x):
        h = m.layer(x)
        chosen = h.index_select(0, m.places)  # mixes
        return h + chosen.sum(0)

    def sound(m, x):
        h = m.layer(x)
        return h + h.index_select(1, m.places).sum(1, keepdim=True)


@pair("gather along the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h.gather(0, (x > 0).long())  # mixes

    def sound(m, x):
        return m.layer(x).gather(1, (x > 0).long())


@pair("place in the batch as data")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * torch.arange(x.shape[0])[:, None]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h * torch.arange(x.shape[1])


@pair("place in the batch as index of a table", table=lambda: torch.randn(64, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * m.table[torch.arange(x.shape[0])]  # mixes

    def sound(m, x):
        return m.layer(x) * m.table[torch.arange(x.shape[1])].sum(0)


@pair("view that moves samples into positions", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        moved = h.view(x.shape[1], x.shape[0], 4)  # mixes
        return moved.softmax(0).sum(0)

    def sound(m, x):
        h = m.layer(x)
        moved = h.view(x.shape[0] * x.shape[1], 4)
        return moved.softmax(1).view(x.shape[0], x.shape[1], 4).sum(1)


@pair("transposed view", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        mixed = h.transpose(0, 1).reshape(x.shape[0], -1)  # mixes
        return mixed * x.sum((1, 2))[:, None]

    def sound(m, x):
        h = m.layer(x)
        kept = h.transpose(1, 2).reshape(x.shape[0], -1)
        return kept * x.sum((1, 2))[:, None]


@pair("samples written into shared rows")
class _:
    def unsound(m, x):
        h = m.layer(x)
        shared = torch.zeros(3, 4, dtype=x.dtype).scatter_add(0, (x > 0).long(), h)  # mixes
        return h + shared[0].tanh()

    def sound(m, x):
        h = m.layer(x)
        own = torch.zeros_like(h).scatter_add(1, (x > 0).long(), h)
        return h + own[:, :1].tanh()


@pair("number of samples as data")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h / x.shape[0]  # mixes

    def sound(m, x):
        return m.layer(x) / x.shape[1]


@pair("number of samples as a sum of ones")
class _:
    def unsound(m, x):
        h = m.layer(x)
        count = torch.ones_like(x[:, 0]).sum()  # mixes
        return h / count

    def sound(m, x):
        h = m.layer(x)
        count = torch.ones_like(x).sum(1, keepdim=True)
        return h / count


@pair("number of samples as a product of ones")
class _:
    def unsound(m, x):
        h = m.layer(x)
        ones = torch.ones(1, x.shape[0], dtype=x.dtype)
        return h * (ones @ ones.T)  # mixes

    def sound(m, x):
        h = m.layer(x)
        ones = torch.ones(1, x.shape[1], dtype=x.dtype)
        return h * (ones @ ones.T)


@pair("number of samples as an exponent")
class _:
    def unsound(m, x):
        h = m.layer(x).sigmoid()
        return h ** (1 + 1 / x.shape[0])  # mixes

    def sound(m, x):
        h = m.layer(x).sigmoid()
        return h ** (1 + 1 / x.shape[1])


@pair("branch on the number of samples")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h if x.shape[0] > 4 else 2 * h  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h if x.shape[1] > 4 else 2 * h


@pair("place in the batch as a cumulative sum of ones")
class _:
    def unsound(m, x):
        h = m.layer(x)
        place = torch.ones(x.shape[0], dtype=x.dtype).cumsum(0)  # mixes
        return h * place[:, None]

    def sound(m, x):
        h = m.layer(x)
        place = torch.ones_like(x).cumsum(1)
        return h * place


@pair("place in the batch as floats")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * torch.arange(0.0, x.shape[0], 1.0, dtype=x.dtype)[:, None]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h * torch.arange(0.0, x.shape[1], 1.0, dtype=x.dtype)


@pair("places of all elements of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        places = torch.arange(4 * x.shape[0])  # mixes
        return h * places.view(-1, 4)

    def sound(m, x):
        h = m.layer(x)
        places = torch.arange(2 * x.shape[1])
        return h * places.view(-1, 4).sum(0)


@pair("shared values repeated for each place in the batch", scales=lambda: nn.ParameterList([torch.linspace(1, 2, 4)]))
class _:
    def unsound(m, x):
        h = m.layer(x)
        tiled = m.scales[0].repeat(x.shape[0])
        return h * tiled.view(4, x.shape[0]).T  # mixes

    def sound(m, x):
        h = m.layer(x)
        tiled = m.scales[0].repeat(x.shape[0])
        return h * tiled.view(x.shape[0], 4)


@pair("row of a table for each place in the batch", table=lambda: torch.randn(64, 1))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * m.table[: x.shape[0]]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h * m.table[: x.shape[1], 0]


@pair("the first place padded", (4,))
class _:
    def unsound(m, x):
        h = m.layer(x)
        first = F.pad(torch.ones(1, 1, dtype=x.dtype), (0, 0, 0, x.shape[0] - 1))  # mixes
        return h * first

    def sound(m, x):
        h = m.layer(x)
        first = F.pad(torch.ones(1, 1, dtype=x.dtype), (0, x.shape[1] - 1))
        return h * first


@pair("softmax over the batch of noise")
class _:
    def unsound(m, x):
        h = m.layer(x)
        noise = torch.zeros(x.shape[0], 1, dtype=x.dtype).softmax(0)  # mixes
        return h * noise

    def sound(m, x):
        h = m.layer(x)
        noise = torch.zeros_like(x).softmax(1)
        return h * noise


@pair("loss divided by the tokens of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        kept = (x > 0).to(x.dtype)
        return (h * kept).sum(1) / kept.sum()  # mixes

    def sound(m, x):
        h = m.layer(x)
        kept = (x > 0).to(x.dtype)
        return (h * kept).sum(1) / kept.sum(1).clamp_min(1)


@pair("loss of the next sample")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return (h - x.roll(-1, 0)).square().sum(1)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return (h - x.roll(-1, 1)).square().sum(1)


@pair(
    "rows whose numbers depend on the place in the batch",
    shape=(3, 4),
    row=lambda: torch.tensor([[1.0, 2.0, 4.0, 8.0]]),
)
class _:
    def unsound(m, x):
        rows = m.row.expand(3 * x.shape[0], 4).reshape(-1)
        h = m.layer(x).permute(2, 0, 1).reshape(-1) * rows  # mixes
        return h.view(4, -1).sum(0).view(-1, 3)

    def sound(m, x):
        rows = m.row.expand(3 * x.shape[0], 4).reshape(-1)
        h = m.layer(x).reshape(-1) * rows
        return h.view(-1, 3, 4)
