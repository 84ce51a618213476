"""Random models: chains of layers and functional steps on [B, T, d] or [B, C, H, W], drawn by hypothesis.

What is drawn is which steps, with which shapes and options; values are random. Sizes are small and collide often
(B == T == d), since an analysis that guesses from sizes goes wrong there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["ImageProgram", "SequenceProgram", "image_programs", "sequence_programs"]

Forward = Callable[[nn.Module, Tensor], Tensor]


class Step(nn.Module):
    """A function of (self, h), and the modules and parameters that it uses."""

    def __init__(self, name: str, forward: Forward, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.name = name
        self.run = forward
        for key, part in parts.items():
            setattr(self, key, part)

    def forward(self, h: Tensor) -> Tensor:
        return self.run(self, h)

    def extra_repr(self) -> str:
        return self.name


def free(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


# Steps on [B, T, d]; each gives [B, T, d] again.


def _linear(T: int, d: int) -> Step:
    return Step("linear", lambda m, h: m.layer(h), layer=nn.Linear(d, d))


def _bottleneck(T: int, d: int) -> Step:
    return Step(
        "bottleneck", lambda m, h: h + m.up(F.gelu(m.down(h))), down=nn.Linear(d, 2, bias=False), up=nn.Linear(2, d)
    )


def _layer_norm(T: int, d: int) -> Step:
    return Step("layer norm", lambda m, h: m.norm(h), norm=nn.LayerNorm(d))


def _rms_norm(T: int, d: int) -> Step:
    return Step("rms norm", lambda m, h: m.norm(h), norm=nn.RMSNorm(d))


def _norm_of_sample(T: int, d: int) -> Step:
    return Step("norm over positions and features", lambda m, h: m.norm(h), norm=nn.LayerNorm([T, d]))


def _attention(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        q, k, v = m.qkv(h).chunk(3, -1)
        return h + m.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    return Step("causal attention", attend, qkv=nn.Linear(d, 3 * d), out=nn.Linear(d, d))


def _attention_by_hand(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        scores = m.q(h) @ h.transpose(1, 2)
        return torch.bmm(scores.softmax(-1), m.v(h))

    return Step("attention by hand", attend, q=nn.Linear(d, d), v=nn.Linear(d, d))


def _multihead(T: int, d: int) -> Step:
    heads = 2 if d % 2 == 0 else 1
    return Step(
        "nn.MultiheadAttention",
        lambda m, h: m.attention(h, h, h, need_weights=False)[0],
        attention=nn.MultiheadAttention(d, heads, batch_first=True),
    )


def _mix_positions(T: int, d: int) -> Step:
    return Step("linear over positions", lambda m, h: m.layer(h.transpose(1, 2)).transpose(1, 2), layer=nn.Linear(T, T))


def _mix_all(T: int, d: int) -> Step:
    return Step(
        "linear over the flat sample", lambda m, h: m.layer(h.flatten(1)).view_as(h), layer=nn.Linear(T * d, T * d)
    )


def _rows_of_all_samples(T: int, d: int) -> Step:
    return Step("view as [B*T, d]", lambda m, h: m.layer(h.reshape(-1, d)).view(-1, T, d), layer=nn.Linear(d, d))


def _positions_first(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        flat = h.transpose(0, 1).reshape(-1, d)
        return m.layer(flat).view(T, -1, d).transpose(0, 1)

    return Step("view as [T*B, d]", run, layer=nn.Linear(d, d))


def _einsum(T: int, d: int) -> Step:
    return Step(
        "einsum with three operands",
        lambda m, h: torch.einsum("btd,de,st->bse", h, m.a, m.b),
        a=free(d, d),
        b=free(T, T),
    )


def _bilinear(T: int, d: int) -> Step:
    return Step("bilinear in the sample", lambda m, h: torch.einsum("btd,de,bse->bts", h, m.a, h) @ h, a=free(d, d))


def _raw_scale(T: int, d: int) -> Step:
    return Step("raw scale and shift", lambda m, h: h * m.scale + m.shift[:, None], scale=free(d), shift=free(T))


def _scalar(T: int, d: int) -> Step:
    return Step("scalar gate", lambda m, h: h * torch.sigmoid(m.gate) + m.gate, gate=free())


def _class_token(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        longer = torch.cat([m.token.expand(len(h), -1, -1), h], 1)
        return m.layer(longer)[:, 1:] + longer[:, :1]

    return Step("class token", run, token=free(1, 1, d), layer=nn.Linear(d, d))


def _shift_positions(T: int, d: int) -> Step:
    return Step("pad and slice", lambda m, h: m.layer(F.pad(h, (0, 0, 1, 0))[:, :-1]) + h, layer=nn.Linear(d, d))


def _running_mean(T: int, d: int) -> Step:
    return Step("cumulative sum over positions", lambda m, h: m.layer(h.cumsum(1)), layer=nn.Linear(d, d))


def _gated(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        a, b = m.layer(h).chunk(2, -1)
        return a * F.silu(b)

    return Step("gated linear unit", run, layer=nn.Linear(d, 2 * d))


def _twice(T: int, d: int) -> Step:
    return Step("one layer twice", lambda m, h: m.layer(torch.tanh(m.layer(h))), layer=nn.Linear(d, d))


def _tied_transpose(T: int, d: int) -> Step:
    return Step(
        "weight and its transpose", lambda m, h: F.linear(m.layer(h).sin(), m.layer.weight.T), layer=nn.Linear(d, d)
    )


def _weight_norm(T: int, d: int) -> Step:
    return Step(
        "weight divided by its norm", lambda m, h: F.linear(h, m.w / m.w.norm(dim=1, keepdim=True)), w=free(d, d)
    )


def _product_of_weights(T: int, d: int) -> Step:
    return Step("product of two weights", lambda m, h: h @ (m.a @ m.b), a=free(d, 2), b=free(2, d))


def _gather(T: int, d: int) -> Step:
    return Step(
        "gather along positions",
        lambda m, h: m.layer(h.gather(1, h.argsort(1))) * h,
        layer=nn.Linear(d, d),
    )


def _table(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return h + m.table((h[..., 0] > 0).long() + (h[..., -1] > 0.5).long())

    return Step("table by value", run, table=nn.Embedding(3, d))


def _positions(T: int, d: int) -> Step:
    return Step("table by position", lambda m, h: h + m.table(torch.arange(h.shape[1])), table=nn.Embedding(T + 1, d))


def _convolution(T: int, d: int) -> Step:
    return Step(
        "convolution over positions",
        lambda m, h: m.filter(h.transpose(1, 2)).transpose(1, 2),
        filter=nn.Conv1d(d, d, 3, padding=1),
    )


def _pool(T: int, d: int) -> Step:
    return Step("pool over positions", lambda m, h: h * m.layer(h.amax(1)).sigmoid()[:, None], layer=nn.Linear(d, d))


def _standardise(T: int, d: int) -> Step:
    return Step(
        "standardised over positions",
        lambda m, h: m.layer((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 0.1).sqrt()),
        layer=nn.Linear(d, d),
    )


def _own_place(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        last = h[torch.arange(len(h)), (h[..., 0] > 0).sum(1).clamp_max(T - 1)]
        return h + m.layer(last)[:, None]

    return Step("a position picked with arange(B)", run, layer=nn.Linear(d, d))


def _where(T: int, d: int) -> Step:
    return Step(
        "where and mask", lambda m, h: torch.where(h > 0, m.layer(h), h.masked_fill(h < -1, -1)), layer=nn.Linear(d, d)
    )


SEQUENCE_STEPS = (
    _linear,
    _bottleneck,
    _layer_norm,
    _rms_norm,
    _norm_of_sample,
    _attention,
    _attention_by_hand,
    _multihead,
    _mix_positions,
    _mix_all,
    _rows_of_all_samples,
    _positions_first,
    _einsum,
    _bilinear,
    _raw_scale,
    _scalar,
    _class_token,
    _shift_positions,
    _running_mean,
    _gated,
    _twice,
    _tied_transpose,
    _weight_norm,
    _product_of_weights,
    _gather,
    _table,
    _positions,
    _convolution,
    _pool,
    _standardise,
    _own_place,
    _where,
)


# Steps on [B, C, H, W]; each gives [B, C, H', W'].


def _conv(C: int, groups: int, padding_mode: str, stride: int, dilation: int) -> Step:
    layer = nn.Conv2d(C, C, 3, stride, dilation, dilation, groups, padding_mode=padding_mode)
    return Step(f"convolution {layer}", lambda m, h: m.layer(h), layer=layer)


def _group_norm(C: int, groups: int) -> Step:
    return Step("group norm", lambda m, h: m.norm(h), norm=nn.GroupNorm(groups, C))


def _channel_norm(C: int) -> Step:
    return Step(
        "norm over channels", lambda m, h: m.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(C)
    )


def _residual(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        y = m.layer(h)
        y += h
        return F.relu_(y)

    return Step("residual in place", run, layer=nn.Conv2d(C, C, 3, padding=1, bias=False))


def _depthwise(C: int) -> Step:
    layer = nn.Conv2d(C, C, (1, 3), padding=(0, 1), groups=C)
    return Step("depthwise convolution", lambda m, h: m.layer(h), layer=layer)


def _squeeze(C: int) -> Step:
    return Step(
        "squeeze and excite", lambda m, h: h * m.layer(h.mean((2, 3))).sigmoid()[..., None, None], layer=nn.Linear(C, C)
    )


def _pooling(C: int) -> Step:
    return Step("pooling", lambda m, h: F.avg_pool2d(h, 3, 1, 1) + F.max_pool2d(h, 3, 1, 1))


def _upsample(C: int) -> Step:
    layer = nn.ConvTranspose2d(C, C, 2, stride=1)
    return Step("transposed convolution", lambda m, h: m.layer(h)[..., :-1, :-1], layer=layer)


def _layer_scale(C: int) -> Step:
    return Step("layer scale", lambda m, h: h * m.scale, scale=free(C, 1, 1))


@dataclass(frozen=True)
class SequenceProgram:
    """What was drawn: the sizes, the steps, whether the input are ids, and what is frozen."""

    batch: int
    positions: int
    width: int
    steps: tuple[Callable[[int, int], Step], ...]
    from_ids: bool
    tied: bool
    frozen: frozenset[int]
    seed: int

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in float64 and its input."""
        torch.manual_seed(self.seed)
        chain: list[nn.Module] = [make(self.positions, self.width) for make in self.steps]
        if self.from_ids:
            table = nn.Embedding(4, self.width)
            chain.insert(0, table)
            if self.tied:
                head = nn.Linear(self.width, 4)
                head.weight = table.weight
                chain.append(head)
            x = torch.randint(0, 4, (self.batch, self.positions))
        else:
            chain.append(nn.Linear(self.width, 2))
            x = torch.randn(self.batch, self.positions, self.width, dtype=torch.float64)
        model = nn.Sequential(*chain).double()
        parameters = list(model.parameters())
        for i in self.frozen:
            if i < len(parameters) - 1:
                parameters[i].requires_grad_(False)
        return model, x


@dataclass(frozen=True)
class ImageProgram:
    """What was drawn: the sizes, the steps, the memory format."""

    batch: int
    channels: int
    size: int
    steps: tuple[Callable[[], Step], ...]
    names: tuple[str, ...]
    channels_last: bool
    seed: int

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in float64 and its input."""
        torch.manual_seed(self.seed)
        model = nn.Sequential(nn.Conv2d(3, self.channels, 1), *[make() for make in self.steps]).double()
        x = torch.randn(self.batch, 3, self.size, self.size, dtype=torch.float64)
        if self.channels_last:
            return model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        return model, x


@st.composite
def sequence_programs(draw: st.DrawFn, max_steps: int = 4) -> SequenceProgram:
    """Programs on [B, T, d] or on ids [B, T]; often all sizes are equal."""
    size = st.integers(1, 4)
    common = draw(st.none() | st.integers(2, 4))
    batch = draw(st.sampled_from([0, 1, 2, 3, 4])) if common is None else common
    positions, width = (draw(size), draw(st.integers(2, 4))) if common is None else (common, common)
    steps = draw(st.lists(st.sampled_from(SEQUENCE_STEPS), min_size=1, max_size=max_steps))
    frozen = draw(st.frozensets(st.integers(0, 8), max_size=3))
    return SequenceProgram(
        batch,
        positions,
        width,
        tuple(steps),
        draw(st.booleans()),
        draw(st.booleans()),
        frozen,
        draw(st.integers(0, 99)),
    )


@st.composite
def image_programs(draw: st.DrawFn, max_steps: int = 3) -> ImageProgram:
    """Programs on [B, C, H, W]."""
    channels = draw(st.sampled_from([2, 4]))
    batch, size = draw(st.integers(0, 4)), draw(st.integers(3, 6))
    divisors = st.sampled_from([g for g in (1, 2, 4) if channels % g == 0])
    steps: list[Callable[[], Step]] = []
    names = []
    for _ in range(draw(st.integers(1, max_steps))):
        kind = draw(
            st.sampled_from(["conv", "group", "channel", "residual", "depthwise", "squeeze", "pool", "up", "scale"])
        )
        names.append(kind)
        match kind:
            case "conv":
                groups, stride = draw(divisors), draw(st.sampled_from([1, 1, 2]))
                mode, dilation = (
                    draw(st.sampled_from(["zeros", "reflect", "replicate"])),
                    draw(st.sampled_from([1, 1, 2])),
                )
                if stride == 2 or dilation == 2:
                    mode = "zeros"
                steps.append(functools.partial(_conv, channels, groups, mode, stride, dilation))
            case "group":
                groups = draw(divisors)
                steps.append(functools.partial(_group_norm, channels, groups))
            case _:
                make = {
                    "channel": _channel_norm,
                    "residual": _residual,
                    "depthwise": _depthwise,
                    "squeeze": _squeeze,
                    "pool": _pooling,
                    "up": _upsample,
                    "scale": _layer_scale,
                }[kind]
                steps.append(functools.partial(make, channels))
    return ImageProgram(
        batch, channels, size, tuple(steps), tuple(names), draw(st.booleans()), draw(st.integers(0, 99))
    )
