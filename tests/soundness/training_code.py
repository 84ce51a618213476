"""Pairs of programs: as they occur in training code."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.soundness.pair import pair


@pair("instance norm that tracks statistics", (4, 6), norm=lambda: nn.InstanceNorm1d(4, track_running_stats=True))
class _:
    def unsound(m, x):
        h = m.norm(x)  # mixes
        return m.layer(h.mean(2))

    def sound(m, x):
        h = F.instance_norm(x)
        return m.layer(h.amax(2))


@pair("centre of the teacher's outputs", centre=lambda: torch.zeros(4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        m.centre.copy_(0.9 * m.centre + 0.1 * h.detach().mean(0))  # mixes
        return (h - m.centre).softmax(1)

    def sound(m, x):
        return (m.layer(x) - m.centre).softmax(1)


@pair("prior of the labels in the batch")
class _:
    def unsound(m, x):
        labels = F.one_hot(x.argmax(1), 4).to(x.dtype)
        prior = labels.sum(0) + 1  # mixes
        return m.layer(x) - prior.log()

    def sound(m, x):
        labels = F.one_hot(x.argmax(1), 4).to(x.dtype)
        return m.layer(x) - (labels + 1).log()


@pair("weights by rank in the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        rank = x.sum(1).argsort().argsort()  # mixes
        return h * rank[:, None]

    def sound(m, x):
        h = m.layer(x)
        return h * x.argsort(1).argsort(1)


@pair("the hardest samples of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        hardest = h.square().sum(1).topk(2).values  # mixes
        return h * hardest.sum()

    def sound(m, x):
        h = m.layer(x)
        return h * h.square().topk(2, dim=1).values.sum(1, keepdim=True)


@pair("experts with a capacity for the batch", gate=lambda: nn.Linear(4, 2))
class _:
    def unsound(m, x):
        chosen = F.one_hot(m.gate(x).argmax(1), 2)
        place = (chosen.cumsum(0) * chosen).sum(1)  # mixes
        return m.layer(x) * (place <= 3)[:, None]

    def sound(m, x):
        chosen = F.one_hot(m.gate(x).argmax(1), 2).to(x.dtype)
        return m.layer(x) * (chosen * m.gate(x).softmax(1)).sum(1, keepdim=True)


@pair("Fourier transform along the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return torch.fft.fft(h, dim=0).real  # mixes

    def sound(m, x):
        return torch.fft.fft(m.layer(x), dim=1).real


@pair("batch joined with itself in another order")
class _:
    def unsound(m, x):
        both = torch.cat([x, x.flip(0)], 1)  # mixes
        return m.layer(both[:, 2:6])

    def sound(m, x):
        both = torch.cat([x, x.flip(1)], 1)
        return m.layer(both[:, 2:6])


@pair("einsum that adds up the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        second = torch.einsum("bi,bj->ij", x, x)  # mixes
        return h @ second

    def sound(m, x):
        h = m.layer(x)
        second = torch.einsum("bi,bj->bij", x, x)
        return torch.einsum("bi,bij->bj", h, second)


@pair("teacher that follows the samples", shadow=lambda: torch.zeros(4, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        m.shadow.add_(x.T @ h.detach())  # mixes
        return h

    def sound(m, x):
        m.shadow.copy_(0.5 * m.layer.weight.detach())
        return m.layer(x) + x @ m.shadow


@pair("windows over an image without a batch", shape=(4, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        mean = F.avg_pool2d(h.transpose(0, 1), 3, 1, 1)  # mixes
        return mean.transpose(0, 1)

    def sound(m, x):
        return F.avg_pool2d(m.layer(x), 3, 1, 1)


@pair("largest of windows over a volume without a batch", shape=(4, 4, 4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        largest = F.max_pool3d(h.transpose(0, 1), 3, 1, 1)  # mixes
        return largest.transpose(0, 1)

    def sound(m, x):
        return F.max_pool3d(m.layer(x), 3, 1, 1)


@pair("a factor that the number of samples changes a little")
class _:
    def unsound(m, x):
        h = m.layer(x) * (x.shape[0] + 1)  # mixes
        return h / (x.shape[0] + 2)

    def sound(m, x):
        return m.layer(x) * (x.shape[1] + 1) / (x.shape[1] + 2)


@pair(
    "a constant that is scaled by the number of samples",
    shape=(4, 4),
    kernel=lambda: torch.randn(4, 4, 1),
    added=lambda: torch.ones(4),
)
class _:
    def unsound(m, x):
        h = F.conv1d(x / x.shape[0], m.kernel, m.added)  # mixes
        return m.layer(h * x.shape[0])

    def sound(m, x):
        h = F.conv1d(x / x.shape[0], m.kernel)
        return m.layer(h * x.shape[0] + m.added[:, None])


@pair("rounded after a division by the number of samples")
class _:
    def unsound(m, x):
        whole = (100 * x / x.shape[0]).to(torch.int64)  # mixes
        return m.layer((whole * x.shape[0]).to(x.dtype))

    def sound(m, x):
        whole = (100 * x).to(torch.int64)
        return m.layer((whole / x.shape[0] * x.shape[0]).to(x.dtype))
