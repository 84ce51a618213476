"""Pairs of programs: what stands next to programs of public code that were refused and are sound.

Several batches in one, rows of the flattened batch, a kernel for each sample, writes by a mask.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.soundness.pair import pair


@pair("chunks of one batch")
class _:
    def unsound(m, x):
        first, second = m.layer(torch.cat([x, x])).split([x.shape[0] + 1, x.shape[0] - 1])  # mixes
        return first[1:] + torch.cat([second, second[:1]])

    def sound(m, x):
        first, second = m.layer(torch.cat([x, x])).split([x.shape[0], x.shape[0]])
        return first + second.tanh()


@pair("neighbours by strides", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).flatten(0, 1)
        return h[0::2][: x.shape[0]] + h[: x.shape[0]]  # mixes

    def sound(m, x):
        h = m.layer(x).flatten(0, 1)
        return h[0::3] + h[2::3]


@pair("every second sample of the others")
class _:
    def unsound(m, x):
        h = m.layer(torch.cat([x, x]))
        return h[0::2] * h[1::2]  # mixes

    def sound(m, x):
        h = m.layer(torch.stack([x, x], 1).flatten(0, 1))
        return h[0::2] * h[1::2]


@pair("written into the next sample's block")
class _:
    def unsound(m, x):
        h = m.layer(torch.cat([x, x]))
        h[1 : 1 + x.shape[0]] = h[: x.shape[0]] * 2  # mixes
        return h[: x.shape[0]]

    def sound(m, x):
        h = m.layer(torch.cat([x, x]))
        h[x.shape[0] :] = h[: x.shape[0]] * 2
        return h[: x.shape[0]] * h[x.shape[0] :]


@pair("positions padded with zeros")
class _:
    def unsound(m, x):
        own = F.pad(torch.arange(x.shape[0])[:, None], (0, 1))  # mixes
        return m.layer(x)[own].flatten(1).sin()

    def sound(m, x):
        own = torch.arange(x.shape[0])[:, None].expand(-1, 2)
        return m.layer(x)[own].flatten(1).sin()


@pair("rows of the flattened batch with another stride", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).flatten(0, 1)
        return h[torch.arange(x.shape[0]) * 2]  # mixes

    def sound(m, x):
        h = m.layer(x).flatten(0, 1)
        return h[torch.arange(x.shape[0]) * 3 + 2]


@pair("rows of the flattened batch beside one's own", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).permute(1, 0, 2).flatten(0, 1)
        return h[torch.arange(x.shape[0]) * 3 + 1]  # mixes

    def sound(m, x):
        h = m.layer(x).permute(1, 0, 2).flatten(0, 1)
        return h.view(3, x.shape[0], 4)[1]


@pair("positions with a negative stride")
class _:
    def unsound(m, x):
        return m.layer(x)[torch.arange(x.shape[0]) * -1]  # mixes

    def sound(m, x):
        return m.layer(x)[torch.arange(x.shape[0]) * 1]


@pair("positions rounded")
class _:
    def unsound(m, x):
        return m.layer(x)[torch.arange(x.shape[0]) // 2]  # mixes

    def sound(m, x):
        return m.layer(x)[torch.arange(x.shape[0]) + 0]


@pair("positions of two samples subtracted")
class _:
    def unsound(m, x):
        own = torch.arange(x.shape[0])
        apart = own * 2 - own  # mixes
        return m.layer(x) * apart[:, None]

    def sound(m, x):
        own = torch.arange(x.shape[0])
        apart = (own * 2 + 3) - own * 2
        return m.layer(x) * apart[:, None]


@pair("messages to the nodes of all graphs", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).flatten(0, 1)
        target = (x[:, :, 0] > 0).long().flatten()
        gathered = torch.zeros_like(h).index_add(0, target, h)  # mixes
        return gathered.view(x.shape).tanh()

    def sound(m, x):
        h = m.layer(x).flatten(0, 1)
        own = torch.arange(x.shape[0])[:, None] * 3
        target = ((x[:, :, 0] > 0).long() + own).flatten()
        return torch.zeros_like(h).index_add(0, target, h).view(x.shape).tanh()


@pair("a kernel of the next sample", (4, 4))
class _:
    def unsound(m, x):
        n = x.shape[0]
        kernels = m.layer(x).sum(2).roll(1, 0)  # mixes
        return F.conv1d(x.reshape(1, n * 4, 4), kernels.reshape(n, 4, 1), groups=n)[0]

    def sound(m, x):
        n = x.shape[0]
        kernels = m.layer(x).sum(2).roll(1, 1)
        return F.conv1d(x.reshape(1, n * 4, 4), kernels.reshape(n, 4, 1), groups=n)[0]


@pair("groups across samples", (4, 4))
class _:
    def unsound(m, x):
        n = x.shape[0]
        channels = m.layer(x).transpose(0, 1).reshape(1, n * 4, 4)
        kernels = x.sum(2).reshape(n, 4, 1)
        return F.conv1d(channels, kernels, groups=n)[0]  # mixes

    def sound(m, x):
        n = x.shape[0]
        kernels = x.sum(2).reshape(n, 4, 1)
        return F.conv1d(m.layer(x).reshape(1, n * 4, 4), kernels, groups=n)[0]


@pair("one kernel of all samples", (4, 4))
class _:
    def unsound(m, x):
        kernel = m.layer(x).sum((0, 2)).view(1, 4, 1)  # mixes
        return F.conv1d(x, kernel)

    def sound(m, x):
        kernel = m.layer.weight.sum(1).view(1, 4, 1)
        return F.conv1d(m.layer(x), kernel)


@pair("a mask token that is a mean", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        mean = h.mean((0, 1))  # mixes
        h[x[:, :, 0] > 0] = mean
        return h

    def sound(m, x):
        h = m.layer(x)
        h[x[:, :, 0] > 0] = m.layer.bias
        return h


@pair("a bilinear form of two samples", form=lambda: nn.Bilinear(4, 4, 2))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.form(h, x.flip(0))  # mixes

    def sound(m, x):
        return m.form(m.layer(x), x.flip(1))


@pair("a recurrent network along the batch", net=lambda: nn.GRU(4, 4))
class _:
    def unsound(m, x):
        return m.net(m.layer(x)[:, None])[0]  # mixes

    def sound(m, x):
        return m.net(m.layer(x)[None])[0][0]
