"""Steps [B, T, d] -> [B, T, d] that treat every position alike."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.programs.step import Step, Steps, free

__all__ = ["FEATURES"]

FEATURES = Steps()


@FEATURES.add
def linear(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h), layer=nn.Linear(d, d))


@FEATURES.add
def bottleneck(T: int, d: int) -> Step:
    return Step(lambda m, h: h + m.up(F.gelu(m.down(h))), down=nn.Linear(d, 2, bias=False), up=nn.Linear(2, d))


@FEATURES.add
def layer_norm(T: int, d: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.LayerNorm(d))


@FEATURES.add
def rms_norm(T: int, d: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.RMSNorm(d))


@FEATURES.add
def local_response_norm(T: int, d: int) -> Step:
    return Step(
        lambda m, h: m.layer(F.local_response_norm(h.transpose(1, 2), 2).transpose(1, 2)), layer=nn.Linear(d, d)
    )


@FEATURES.add
def rows_of_all_samples(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.reshape(-1, d)).view(-1, T, d), layer=nn.Linear(d, d))


@FEATURES.add
def positions_first(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        flat = h.transpose(0, 1).reshape(-1, d)
        return m.layer(flat).view(T, -1, d).transpose(0, 1)

    return Step(run, layer=nn.Linear(d, d))


@FEATURES.add
def scalar_gate(T: int, d: int) -> Step:
    return Step(lambda m, h: h * torch.sigmoid(m.gate) + m.gate, gate=free())


@FEATURES.add
def gated_linear_unit(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        a, b = m.layer(h).chunk(2, -1)
        return a * F.silu(b)

    return Step(run, layer=nn.Linear(d, 2 * d))


@FEATURES.add
def prelu(T: int, d: int) -> Step:
    return Step(lambda m, h: m.each(h.transpose(1, 2)).transpose(1, 2) + m.one(h), each=nn.PReLU(d), one=nn.PReLU())


@FEATURES.add
def bilinear(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.tanh(), h.flip(-1)), layer=nn.Bilinear(d, d, d))


@FEATURES.add
def one_layer_twice(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(torch.tanh(m.layer(h))), layer=nn.Linear(d, d))


@FEATURES.add
def weight_and_its_transpose(T: int, d: int) -> Step:
    return Step(lambda m, h: F.linear(m.layer(h).sin(), m.layer.weight.T), layer=nn.Linear(d, d))


@FEATURES.add
def weight_divided_by_its_norm(T: int, d: int) -> Step:
    return Step(lambda m, h: F.linear(h, m.w / m.w.norm(dim=1, keepdim=True)), w=free(d, d))


@FEATURES.add
def weight_norm(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h), layer=parametrizations.weight_norm(nn.Linear(d, d)))


@FEATURES.add
def product_of_weights(T: int, d: int) -> Step:
    return Step(lambda m, h: h @ (m.a @ m.b), a=free(d, 2), b=free(2, d))


@FEATURES.add
def low_rank_addition(T: int, d: int) -> Step:
    frozen = nn.Linear(d, d).requires_grad_(False)
    return Step(lambda m, h: m.frozen(h) + (h @ m.a) @ m.b, frozen=frozen, a=free(d, 1), b=free(1, d))


@FEATURES.add
def table_by_value(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return h + m.table((h[..., 0] > 0).long() + (h[..., -1] > 0.5).long())

    return Step(run, table=nn.Embedding(3, d))


@FEATURES.add
def codebook(T: int, d: int) -> Step:
    """Vector quantisation with a straight-through estimator."""

    def run(m: Step, h: Tensor) -> Tensor:
        nearest = (h[:, :, None] - m.table.weight).square().sum(-1).argmin(-1)
        code = m.table(nearest)
        return code + (h - h.detach())

    return Step(run, table=nn.Embedding(4, d))


@FEATURES.add
def where_and_mask(T: int, d: int) -> Step:
    return Step(lambda m, h: torch.where(h > 0, m.layer(h), h.masked_fill(h < -1, -1)), layer=nn.Linear(d, d))


@FEATURES.add
def distances_to_prototypes(T: int, d: int) -> Step:
    return Step(lambda m, h: (-torch.cdist(h, m.rows)).softmax(-1) @ m.rows + h, rows=free(5, d))


@FEATURES.add
def top_features(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        values, places = h.topk(2, -1)
        return torch.zeros_like(h).scatter(-1, places, m.layer(values))

    return Step(run, layer=nn.Linear(2, 2))


@FEATURES.add
def sorted_features(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(h.sort(-1).values) + h.cummax(-1).values, layer=nn.Linear(d, d))


@FEATURES.add
def soft_experts(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        weights = m.gate(h).softmax(-1)
        return torch.einsum("bte,btd,edf->btf", weights, h, m.experts)

    return Step(run, gate=nn.Linear(d, 3), experts=free(3, d, d))


@FEATURES.add
def hard_experts(T: int, d: int) -> Step:
    """Each sample goes to one expert, by a one-hot vector; its weight carries the gradient of the gate."""

    def run(m: Step, h: Tensor) -> Tensor:
        scores = m.gate(h.mean(1)).softmax(-1)
        chosen = F.one_hot(scores.argmax(-1), 2).to(h.dtype) * scores
        outputs = torch.stack([m.first(h), m.second(h)], -1)
        return (outputs * chosen[:, None, None]).sum(-1)

    return Step(run, gate=nn.Linear(d, 2), first=nn.Linear(d, d), second=nn.Linear(d, d, bias=False))


@FEATURES.add
def gathered_experts(T: int, d: int) -> Step:
    """Each sample's weights are picked out of a table of weights."""

    def run(m: Step, h: Tensor) -> Tensor:
        chosen = (h[:, 0, 0] > 0).long()
        return torch.bmm(h, m.experts[chosen]) + m.biases[chosen][:, None]

    return Step(run, experts=free(2, d, d), biases=free(2, d))


@FEATURES.add
def checkpointed(T: int, d: int) -> Step:
    chain = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.LayerNorm(2 * d), nn.Linear(2 * d, d))
    return Step(lambda m, h: h + checkpoint(m.chain, h, use_reentrant=False), chain=chain)


@FEATURES.add
def dropout_off(T: int, d: int) -> Step:
    return Step(lambda m, h: m.layer(m.dropout(h)), layer=nn.Linear(d, d), dropout=nn.Dropout(0.5).eval())


@FEATURES.add
def random_features(T: int, d: int) -> Step:
    """Fixed directions, trained phases and amplitudes."""
    directions = nn.Linear(d, 2 * d, bias=False).requires_grad_(False)
    return Step(
        lambda m, h: (torch.cos(m.directions(h) + m.phase) * m.amplitude).unflatten(-1, (2, -1)).sum(-2),
        directions=directions,
        phase=free(2 * d),
        amplitude=free(2 * d),
    )


@FEATURES.add
def written_in_place(T: int, d: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        y = m.layer(h).clone()
        y[..., 0] = h[..., -1]
        y += h
        y.mul_(m.scale)
        return y

    return Step(run, layer=nn.Linear(d, d), scale=free(d))


@FEATURES.add
def equilibrium(T: int, d: int) -> Step:
    """A few rounds of a fixed-point iteration with one layer."""

    def run(m: Step, h: Tensor) -> Tensor:
        z = torch.zeros_like(h)
        for _ in range(3):
            z = torch.tanh(m.layer(z) + h)
        return z

    return Step(run, layer=nn.Linear(d, d))
