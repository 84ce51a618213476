"""Pairs of programs: statistics of the batch."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.soundness.pair import pair


@pair("mean over the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        centred = h - h.mean(0)  # mixes
        return centred * 2

    def sound(m, x):
        h = m.layer(x)
        return h - h.mean(1, keepdim=True)


@pair("mean of the inputs over the batch")
class _:
    def unsound(m, x):
        x = x - x.mean(0)  # mixes
        return m.layer(x)

    def sound(m, x):
        return m.layer(x - x.mean(-1, keepdim=True))


@pair("BatchNorm in train mode", norm=lambda: nn.BatchNorm1d(4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.norm(h)  # mixes

    def sound(m, x):
        return F.layer_norm(m.layer(x), (4,))


@pair(
    "BatchNorm without affine part and statistics",
    (4, 3, 4),
    norm=lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
)
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.norm(h)  # mixes

    def sound(m, x):
        return F.group_norm(m.layer(x), 2)


@pair("BatchNorm written by hand")
class _:
    def unsound(m, x):
        h = m.layer(x)
        variance, mean = torch.var_mean(h, dim=0)  # mixes
        return (h - mean) * torch.rsqrt(variance + 1e-5)

    def sound(m, x):
        h = m.layer(x)
        variance, mean = torch.var_mean(h, dim=1, keepdim=True)
        return (h - mean) * torch.rsqrt(variance + 1e-5)


@pair("standard deviation of the whole tensor")
class _:
    def unsound(m, x):
        h = m.layer(x)
        spread = h.std()  # mixes
        return h / spread

    def sound(m, x):
        h = m.layer(x)
        return h / h.std(1, keepdim=True)


@pair("largest value of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h / h.abs().max()  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h / h.abs().amax(1, keepdim=True)


@pair("norm of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return F.normalize(h, dim=0)  # mixes

    def sound(m, x):
        return F.normalize(m.layer(x), dim=1)


@pair("nonlinear function of the sum over the samples")
class _:
    def unsound(m, x):
        total = m.layer(x).sum(0)  # mixes
        return torch.tanh(total).sum() + x.sum(1)

    def sound(m, x):
        total = m.layer(x).sum(1)
        return torch.tanh(total) + x.sum(1)


@pair("sum over the batch added to every sample")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h + h.sum(0)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h + h.sum(1, keepdim=True)


@pair("parameter-free statistic as a scale")
class _:
    def unsound(m, x):
        scale = x.detach().square().mean().sqrt()  # mixes
        return m.layer(x) * scale

    def sound(m, x):
        scale = x.detach().square().mean(1, keepdim=True).sqrt()
        return m.layer(x) * scale
