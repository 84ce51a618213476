"""Pairs of programs: memory of earlier batches."""

import torch

from tests.soundness.pair import pair


@pair("running mean of the inputs", seen=lambda: torch.zeros(4))
class _:
    def unsound(m, x):
        m.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))  # mixes
        return m.layer(x)

    def sound(m, x):
        return m.layer(x - m.seen)


@pair("queue of the last batch", queue=lambda: torch.zeros(4))
class _:
    def unsound(m, x):
        h = m.layer(x)
        m.queue.copy_(h.detach().amax(0))  # mixes
        return h

    def sound(m, x):
        h = m.layer(x)
        return h * m.queue.sum()


@pair("count of the samples seen", count=lambda: torch.zeros((), dtype=torch.long))
class _:
    def unsound(m, x):
        m.count.add_(x.shape[0])  # mixes
        return m.layer(x)

    def sound(m, x):
        m.count.add_(1)
        return m.layer(x)
