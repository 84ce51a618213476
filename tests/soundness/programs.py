"""Programs in which one sample influences another one's gradient, and twins that do nearly the same and are sound.

The first line on which samples meet bears the comment `# mixes`; the error must name it. That is where the user has to
change something: a sum over the batch, say, and not the line that reads the sum. Each program is a function of the
module `m`, which owns what a program may train or write to, and of x [B, ...]. `h` is what the trained layer made of x.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PAIRS", "Pair", "Program"]

Function = Callable[[nn.Module, Tensor], Tensor]


class Program(nn.Module):
    """A trained layer [..., 4] -> [..., 4], and further modules and buffers that a program asks for."""

    def __init__(self, function: Function, **parts: Callable[[], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function
        for name in parts:
            if name not in function.__code__.co_names:
                continue
            part = parts[name]()
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@dataclass(frozen=True)
class Pair:
    """A program that must be refused and one that must be exact.

    Attributes:
        name: what mixes.
        unsound, sound: the programs.
        shape: of one sample.
        parts: modules and buffers of the programs.
    """

    name: str
    unsound: Function
    sound: Function
    shape: tuple[int, ...] = (4,)
    parts: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


PAIRS: list[Pair] = []


def pair(name: str, shape: tuple[int, ...] = (4,), **parts: Callable[[], Any]) -> Callable[[type], type]:
    """Add the pair of functions `unsound` and `sound` of a class."""

    def add(programs: Any) -> type:
        PAIRS.append(Pair(name, programs.unsound, programs.sound, shape, parts))
        return programs

    return add


# Statistics of the batch


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


# Scans and orders along the batch


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


# Samples multiplied with one another


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


# Samples in other places


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


# Memory of earlier batches


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


# As they occur in training code


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
