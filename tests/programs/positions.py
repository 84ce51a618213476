"""Steps [B, T, d] -> [B, T, d] in which positions of one sample meet."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.step import Step, Steps, free

__all__ = ["POSITIONS"]

POSITIONS = Steps()


@POSITIONS.add
def norm_of_sample(T: int, d: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.LayerNorm([T, d]))


@POSITIONS.add
def causal_attention(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        q, k, v = m.qkv(h).chunk(3, -1)
        return h + m.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    return Step(attend, qkv=nn.Linear(d, 3 * d), out=nn.Linear(d, d))


@POSITIONS.add
def masked_attention(T: int, d: int) -> Step:
    """Positions that hold a negative number are not attended to, each by its own position excepted."""

    def attend(m: Step, h: Tensor) -> Tensor:
        seen = (h[:, None, :, 0] > 0) | torch.eye(T, dtype=torch.bool)
        return F.scaled_dot_product_attention(m.q(h), m.k(h), h, attn_mask=seen)

    return Step(attend, q=nn.Linear(d, d), k=nn.Linear(d, d, bias=False))


@POSITIONS.add
def biased_attention(T: int, d: int) -> Step:
    """A bias by distance on the scores, as in T5."""

    def attend(m: Step, h: Tensor) -> Tensor:
        places = torch.arange(T)
        bias = m.table((places[:, None] - places).abs())[..., 0]
        return (m.q(h) @ h.transpose(1, 2) / d + bias).softmax(-1) @ m.v(h)

    return Step(attend, q=nn.Linear(d, d), v=nn.Linear(d, d), table=nn.Embedding(T, 1))


@POSITIONS.add
def latent_attention(T: int, d: int) -> Step:
    """Queries that all samples share, as in Perceiver."""

    def attend(m: Step, h: Tensor) -> Tensor:
        scores = torch.einsum("td,bsd->bts", m.queries, m.k(h))
        return h + scores.softmax(-1) @ h

    return Step(attend, queries=free(T, d), k=nn.Linear(d, d))


@POSITIONS.add
def attention_by_hand(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        scores = m.q(h) @ h.transpose(1, 2)
        return torch.bmm(scores.softmax(-1), m.v(h))

    return Step(attend, q=nn.Linear(d, d), v=nn.Linear(d, d))


@POSITIONS.add
def linear_attention(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        k, q = F.softplus(m.k(h)), F.softplus(m.q(h))
        state = torch.einsum("btd,bte->btde", k, h).cumsum(1)
        return torch.einsum("btd,btde->bte", q, state) / torch.einsum("btd,btd->bt", q, k.cumsum(1))[..., None]

    return Step(attend, q=nn.Linear(d, d), k=nn.Linear(d, d))


@POSITIONS.add
def multihead(T: int, d: int) -> Step:
    heads = 2 if d % 2 == 0 else 1
    return Step(
        lambda m, h: m.attention(h, h, h, need_weights=False)[0],
        attention=nn.MultiheadAttention(d, heads, batch_first=True),
    )


@POSITIONS.add
def multihead_positions_first(T: int, d: int) -> Step:
    def attend(m: Step, h: Tensor) -> Tensor:
        h = h.transpose(0, 1)
        return m.attention(h, h, h, need_weights=False)[0].transpose(0, 1)

    return Step(attend, attention=nn.MultiheadAttention(d, 1, bias=False))


@POSITIONS.add
def encoder_layer(T: int, d: int) -> Step:
    layer = nn.TransformerEncoderLayer(d, 1, 2 * d, dropout=0.0, batch_first=True, norm_first=True)
    return Step(lambda m, h: m.layer(h), layer=layer)


@POSITIONS.add
def rotary(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        angle = torch.arange(T, dtype=h.dtype)[:, None] * 0.7
        turned = torch.stack([-h[..., 1::2][..., : d // 2], h[..., ::2][..., : d // 2]], -1).flatten(-2)
        return m.layer(h * angle.cos() + F.pad(turned, (0, d % 2)) * angle.sin())

    return Step(run, layer=nn.Linear(d, d))


@POSITIONS.add
def linear_over_positions(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.transpose(1, 2)).transpose(1, 2), layer=nn.Linear(T, T))


@POSITIONS.add
def linear_over_the_flat_sample(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.flatten(1)).view_as(h), layer=nn.Linear(T * d, T * d))


@POSITIONS.add
def einsum_with_three_operands(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.einsum("btd,de,st->bse", h, m.a, m.b), a=free(d, d), b=free(T, T))


@POSITIONS.add
def bilinear_in_the_sample(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.einsum("btd,de,bse->bts", h, m.a, h) @ h, a=free(d, d))


@POSITIONS.add
def raw_scale_and_shift(T: int, d: int) -> Step:
    return Step(lambda m, h: h * m.scale + m.shift[:, None], scale=free(d), shift=free(T))


@POSITIONS.add
def class_token(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        longer = torch.cat([m.token.expand(len(h), -1, -1), h], 1)
        return m.layer(longer)[:, 1:] + longer[:, :1]

    return Step(run, token=free(1, 1, d), layer=nn.Linear(d, d))


@POSITIONS.add
def pad_and_slice(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(F.pad(h, (0, 0, 1, 0))[:, :-1]) + h, layer=nn.Linear(d, d))


@POSITIONS.add
def sliding_windows(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(F.pad(h, (0, 0, 1, 0)).unfold(1, 2, 1)).squeeze(-1), layer=nn.Linear(2, 1))


@POSITIONS.add
def cumulative_sum(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.cumsum(1)), layer=nn.Linear(d, d))


@POSITIONS.add
def sorted_by_value(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.gather(1, h.argsort(1))) * h, layer=nn.Linear(d, d))


@POSITIONS.add
def rolled_and_flipped(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.roll(1, 1)) + h.flip(1), layer=nn.Linear(d, d))


@POSITIONS.add
def fourier(T: int, d: int) -> Step:
    """Mixing as in FNet: the real part of the transform over positions and features."""
    return Step(lambda m, h: m.layer(torch.fft.fft2(h, dim=(1, 2)).real) + h, layer=nn.Linear(d, d))


@POSITIONS.add
def spectral_filter(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(h, dim=1) * m.gain, n=T, dim=1) + m.shift

    return Step(run, gain=free(T // 2 + 1, d), shift=free(d))


@POSITIONS.add
def table_by_position(T: int, d: int) -> Step:
    return Step(lambda m, h: h + m.table(torch.arange(h.shape[1])), table=nn.Embedding(T + 1, d))


@POSITIONS.add
def bag_of_values(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return h * m.bag((h[..., 0] > 0).long() + (h[..., 1] > 0.3).long())[:, None]

    return Step(run, bag=nn.EmbeddingBag(3, d, mode="mean"))


@POSITIONS.add
def weighted_bag(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return h + m.bag((h[..., 0] > 0).long(), per_sample_weights=h[..., -1].tanh())[:, None]

    return Step(run, bag=nn.EmbeddingBag(3, d, mode="sum"))


def _convolution(T: int, d: int, **options: object) -> Step:
    groups = d if options.pop("depthwise", False) else 1
    layer = nn.Conv1d(d, d, 3, groups=groups, **options)
    return Step(lambda m, h: m.filter(h.transpose(1, 2)).transpose(1, 2), filter=layer)


for _name, _options in {
    "convolution": {"padding": 1},
    "dilated_convolution": {"padding": 2, "dilation": 2, "bias": False},
    "depthwise_convolution": {"padding": 1, "depthwise": True},
    "circular_convolution": {"padding": 1, "padding_mode": "circular"},
    "replicating_convolution": {"padding": 2, "dilation": 2, "padding_mode": "replicate", "depthwise": True},
    "convolution_that_pads_itself": {"padding": "same"},
}.items():
    POSITIONS[_name] = functools.partial(_convolution, **_options)


@POSITIONS.add
def transposed_convolution(T: int, d: int) -> Step:
    layer = nn.ConvTranspose1d(d, d, 3, stride=2, padding=1, output_padding=1)
    return Step(lambda m, h: m.filter(h.transpose(1, 2)).transpose(1, 2)[:, ::2], filter=layer)


@POSITIONS.add
def instance_norm(T: int, d: int) -> Step:
    """A position of zeros in front, since PyTorch refuses to normalise over one."""

    def run(m: Step, h: Tensor) -> Tensor:
        return m.norm(F.pad(h, (0, 0, 1, 0)).transpose(1, 2)).transpose(1, 2)[:, 1:]

    return Step(run, norm=nn.InstanceNorm1d(d, affine=True))


@POSITIONS.add
def pool_over_positions(T: int, d: int) -> Step:
    return Step(lambda m, h: h * m.layer(h.amax(1)).sigmoid()[:, None], layer=nn.Linear(d, d))


@POSITIONS.add
def attention_pooling(T: int, d: int) -> Step:
    return Step(lambda m, h: h + ((h @ m.query).softmax(1)[..., None] * h).sum(1, keepdim=True), query=free(d))


@POSITIONS.add
def standardised(T: int, d: int) -> Step:
    return Step(
        lambda m, h: m.layer((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 0.1).sqrt()),
        layer=nn.Linear(d, d),
    )


@POSITIONS.add
def a_position_picked_with_arange(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        last = h[torch.arange(len(h)), (h[..., 0] > 0).sum(1).clamp_max(T - 1)]
        return h + m.layer(last)[:, None]

    return Step(run, layer=nn.Linear(d, d))


@POSITIONS.add
def gru(T: int, d: int) -> Step:
    return Step(lambda m, h: m.states(h)[0], states=nn.GRU(d, d, batch_first=True))


@POSITIONS.add
def lstm(T: int, d: int) -> Step:
    return Step(lambda m, h: m.states(h)[0], states=nn.LSTM(d, d, batch_first=True))


@POSITIONS.add
def rnn_positions_first(T: int, d: int) -> Step:
    layer = nn.RNN(d, d, bidirectional=True)
    return Step(lambda m, h: m.states(h.transpose(0, 1))[0].transpose(0, 1).unflatten(-1, (2, d)).sum(2), states=layer)


@POSITIONS.add
def state_space(T: int, d: int) -> Step:
    """A recurrence whose decay depends on the input, in a loop of Python."""

    def run(m: Step, h: Tensor) -> Tensor:
        decay, state, states = m.decay(h).sigmoid(), torch.zeros_like(h[:, 0]), []
        for t in range(T):
            state = decay[:, t] * state + h[:, t]
            states.append(state)
        return torch.stack(states, 1) + h * m.skip

    return Step(run, decay=nn.Linear(d, d), skip=free(d))
