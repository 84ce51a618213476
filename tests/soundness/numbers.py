"""Pairs of programs: numbers and sizes that come from data."""

import torch
import torch.nn.functional as F

from tests.soundness.pair import pair


def public():
    return torch.tensor([1, 0, 2, 3])


@pair("the number of positive values", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) * n.item()

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * n.item()


@pair("a loss divided by how many are not zero", public=public)
class _:
    def unsound(m, x):
        found = (x > 0).nonzero()  # mixes
        return m.layer(x) / found.shape[0]

    def sound(m, x):
        found = m.public.nonzero()
        return m.layer(x) / found.shape[0]


@pair("how many values are different", public=public)
class _:
    def unsound(m, x):
        values = torch.unique(x.round())  # mixes
        return m.layer(x) * values.shape[0]

    def sound(m, x):
        values = torch.unique(m.public)
        return m.layer(x) * values.shape[0]


@pair("how many values a mask picks", public=public)
class _:
    def unsound(m, x):
        picked = x[x > 0]  # mixes
        return m.layer(x) * picked.shape[0]

    def sound(m, x):
        picked = m.public[m.public > 0]
        return m.layer(x) * picked.shape[0]


@pair("how many values masked_select picks", public=public)
class _:
    def unsound(m, x):
        picked = torch.masked_select(x, x > 0)  # mixes
        return m.layer(x) + picked.shape[0] / 7

    def sound(m, x):
        picked = torch.masked_select(m.public, m.public > 0)
        return m.layer(x) + picked.shape[0] / 7


@pair("up to the longest of the batch", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum(1).max()  # mixes
        return m.layer(x)[:, : n.item()].sum(1)

    def sound(m, x):
        n = m.public.max()
        return m.layer(x)[:, : n.item()].sum(1)


@pair("from the second to one behind the longest", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum(1).amax()  # mixes
        return m.layer(x)[:, 1 : n.item() + 1].sum(1)

    def sound(m, x):
        n = m.public.amax()
        return m.layer(x)[:, 1 : n.item() + 1].sum(1)


@pair("the size of a cut at the longest", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum(1).max()  # mixes
        return m.layer(x) * x[:, : n.item()].shape[1]

    def sound(m, x):
        n = m.public.max()
        return m.layer(x) * x[:, : n.item()].shape[1]


@pair("a count up to a number of the batch", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) * torch.arange(n.item()).sum()

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * torch.arange(n.item()).sum()


@pair("as many ones as a number of the batch", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) + torch.ones(n.item(), 4, dtype=x.dtype).sum(0)

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) + torch.ones(n.item(), 4, dtype=x.dtype).sum(0)


@pair("a tensor full of a number of the batch", public=public)
class _:
    def unsound(m, x):
        total = x.sum()  # mixes
        return m.layer(x) * torch.full((), total.item(), dtype=x.dtype)

    def sound(m, x):
        total = m.public.double().sum()
        return m.layer(x) * torch.full((), total.item(), dtype=x.dtype)


@pair("full_like of a number of the batch", public=public)
class _:
    def unsound(m, x):
        h = m.layer(x)
        total = x.sum()  # mixes
        return h * torch.full_like(h, total.item())

    def sound(m, x):
        h = m.layer(x)
        total = m.public.double().sum()
        return h * torch.full_like(h, total.item())


@pair("new_full of a number of the batch", public=public)
class _:
    def unsound(m, x):
        total = x.amax()  # mixes
        return m.layer(x) * x.new_full((4,), total.item())

    def sound(m, x):
        total = m.public.double().amax()
        return m.layer(x) * x.new_full((4,), total.item())


@pair("a tensor filled in place with a number of the batch", public=public)
class _:
    def unsound(m, x):
        scale, total = torch.ones(4, dtype=x.dtype), x.sum()  # mixes
        scale.fill_(total.item())
        return m.layer(x) * scale

    def sound(m, x):
        scale, total = torch.ones(4, dtype=x.dtype), m.public.double().sum()
        scale.fill_(total.item())
        return m.layer(x) * scale


@pair("a buffer filled with a number of the batch", kept=lambda: torch.ones(4), public=public)
class _:
    def unsound(m, x):
        total = x.sum()  # mixes
        m.kept.fill_(total.item())
        return m.layer(x)

    def sound(m, x):
        total = m.public.sum()
        m.kept.fill_(total.item())
        return m.layer(x)


@pair("a number of the batch as a power", public=public)
class _:
    def unsound(m, x):
        n = (x[:, 0] > 0).sum()  # mixes
        return m.layer(x) * 0.9 ** n.item()

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * 0.9 ** n.item()


@pair("a number of the batch as the number of classes", public=public)
class _:
    def unsound(m, x):
        top = (x > 0).sum(1).amax()  # mixes
        return m.layer(x) * torch.linspace(0, 1, 3, dtype=x.dtype).sum() / (top.item() + 1)

    def sound(m, x):
        top = m.public.amax()
        return m.layer(x) * torch.linspace(0, 1, 3, dtype=x.dtype).sum() / (top.item() + 1)


@pair("a row of a table picked by a number of the batch", table=lambda: torch.randn(64, 4), public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) * m.table[n.item()]

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * m.table[n.item()]


@pair("padded to the longest of the batch", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum(1).max()  # mixes
        return F.pad(m.layer(x), (0, n.item()), value=0.5).mean(1)

    def sound(m, x):
        n = m.public.max()
        return F.pad(m.layer(x), (0, n.item()), value=0.5).mean(1)


@pair("rows repeated as often as samples say", public=public)
class _:
    def unsound(m, x):
        times = (x[0] > 0).long()  # mixes
        rows = m.layer.weight.repeat_interleave(times, 0)
        return m.layer(x) + rows.sum(0)

    def sound(m, x):
        rows = m.layer.weight.repeat_interleave(m.public, 0)
        return m.layer(x) + rows.sum(0)


@pair("a number of the batch rounded and halved", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) * (n.item() // 2 + 1)

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * (n.item() // 2 + 1)


@pair("several numbers of the batch", public=public)
class _:
    def unsound(m, x):
        first = (x > 0).sum(0)  # mixes
        a, b, c, d = first.tolist()
        return m.layer(x) * (a + b - c * d)

    def sound(m, x):
        a, b, c, d = m.public.tolist()
        return m.layer(x) * (a + b - c * d)


@pair("the size of the padded batch beside a number of it", public=public)
class _:
    def unsound(m, x):
        n = (x > 0).sum()  # mixes
        return m.layer(x) * (n.item() + x.shape[1])

    def sound(m, x):
        n = m.public.sum()
        return m.layer(x) * (n.item() + x.shape[1])
