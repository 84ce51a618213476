"""Pairs of programs: scans and orders along the batch."""

import torch.nn.functional as F

from tests.soundness.pair import pair


@pair("softmax over the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        weights = h.softmax(0)  # mixes
        return weights * 3

    def sound(m, x):
        return m.layer(x).softmax(1)


@pair("log-softmax over all elements")
class _:
    def unsound(m, x):
        h = m.layer(x)
        flat = h.flatten()
        return flat.log_softmax(0).view(-1, 4)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h.flatten(1).log_softmax(1).view(-1, 4)


@pair("cumulative sum along the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h.cumsum(0)  # mixes

    def sound(m, x):
        return m.layer(x).cumsum(1)


@pair("flip of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h * x.flip(0)  # mixes

    def sound(m, x):
        return m.layer(x) * x.flip(1)


@pair("roll of the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h - h.roll(1, 0)  # mixes

    def sound(m, x):
        h = m.layer(x)
        return h - h.roll(1, 1)


@pair("sort along the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        return h.sort(0).values * 2  # mixes

    def sound(m, x):
        return m.layer(x).sort(1).values * 2


@pair("the largest sample in every feature")
class _:
    def unsound(m, x):
        h = m.layer(x)
        best = h.amax(0)  # mixes
        return h - best

    def sound(m, x):
        h = m.layer(x)
        return h - h.amax(1, keepdim=True)


@pair("difference of neighbours in the batch")
class _:
    def unsound(m, x):
        h = m.layer(x)
        pairs = h[1:] - h[:-1]  # mixes
        return F.pad(pairs, (0, 0, 1, 0))

    def sound(m, x):
        h = m.layer(x)
        pairs = h[:, 1:] - h[:, :-1]
        return F.pad(pairs, (1, 0))
