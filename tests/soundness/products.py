"""Pairs of programs: samples multiplied with one another."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.soundness.pair import pair


@pair("similarity of all samples with one another")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h @ h.T  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h[:, :, None] @ h[:, None, :]


@pair("contrastive loss within the batch")
class _:
    def unsound(m, x):
        h = F.normalize(m.layer(x), dim=1)
        logits = torch.einsum("id,jd->ij", h, x)  # mixes
        return logits.log_softmax(1).diagonal()

    def sound(m, x):
        h = F.normalize(m.layer(x), dim=1)
        logits = torch.einsum("id,id->i", h, x)
        return F.logsigmoid(logits)


@pair("covariance of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        covariance = h.T @ h  # mixes
        return h @ covariance

    def sound(m, x):
        h = m.layer(x)
        return h @ (m.layer.weight.T @ m.layer.weight)


@pair("outer product over the batch")
class _:
    def unsound(m, x):
        h = m.layer(x).sum(1)
        return torch.outer(h, h)  # mixes

    def sound(m, x):
        h = m.layer(x).sum(1)
        return torch.outer(h, m.layer.bias)


@pair("pairwise distances")
class _:
    def unsound(m, x):
        h = m.layer(x)
        apart = h[:, None] - h[None]  # mixes
        return apart.square().sum(-1)

    def sound(m, x):
        h = m.layer(x)
        apart = h[:, None] - m.layer.weight[None]
        return apart.square().sum(-1)


@pair("distances by cdist")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return torch.cdist(h, x)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return torch.cdist(h, m.layer.weight)


@pair("distances by cdist from the other side")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h @ torch.cdist(h.T, h.T)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return torch.cdist(m.layer.weight, h).T


@pair("pooling of an image whose rows are samples", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).transpose(0, 1)
        return F.avg_pool2d(h, 3, 1, 1).transpose(0, 1)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return F.avg_pool2d(h, 3, 1, 1)


@pair("pooling of a volume whose layers are samples", (3, 4, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).transpose(0, 1)
        return F.avg_pool3d(h, 3, 1, 1).transpose(0, 1)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return F.avg_pool3d(h, 3, 1, 1)


@pair("bilinear layer", form=lambda: nn.Bilinear(4, 4, 3))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.form(h, x.flip(0))  # mixes

    def sound(m, x):
        return m.form(m.layer(x), x.flip(1))


@pair("attention across the samples", (3, 4), attention=lambda: nn.MultiheadAttention(4, 2, batch_first=False))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.attention(h, h, h, need_weights=False)[0]  # mixes

    def sound(m, x):
        h = m.layer(x).transpose(0, 1)
        return m.attention(h, h, h, need_weights=False)[0].transpose(0, 1)


@pair("scaled dot-product attention across the samples", (3, 4))
class _:
    def unsound(m, x):
        h = m.layer(x).transpose(0, 1)
        return F.scaled_dot_product_attention(h, h, h).transpose(0, 1)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return F.scaled_dot_product_attention(h, h, h)


@pair("recurrence along the batch", (3, 4), rnn=lambda: nn.GRU(4, 4, batch_first=False))
class _:
    def unsound(m, x):
        h = m.layer(x)
        return m.rnn(h)[0]  # mixes

    def sound(m, x):
        h = m.layer(x)
        return torch.tanh(h) + h.cumsum(1)


@pair("convolution along the batch", (3,), filter=lambda: nn.Conv1d(3, 3, 3, padding=1))
class _:
    def unsound(m, x):
        y = x.T[None]
        y = m.filter(y)  # mixes
        return m.layer(F.pad(y[0].T, (0, 1)))

    def sound(m, x):
        y = m.filter(x[:, :, None])
        return m.layer(F.pad(y[:, :, 0], (0, 1)))
