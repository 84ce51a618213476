"""Layers of torch.nn and ways to use parameters that the random programs do not draw."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from tests.models.run import Run

__all__ = ["LAYERS", "free", "rows"]


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def free(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


Case = tuple[nn.Module, tuple[Tensor, ...]]


def over_space(layer: nn.Module, dims: int, size: int = 4) -> Case:
    """A layer on [B, 4, *] between two convolutions."""
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return nn.Sequential(convolution(4, 4, 1), layer, convolution(4, 4, 1)), (rows(3, 4, *[size] * dims),)


def positive_definite(x: Tensor) -> Tensor:
    return x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype)


def log_determinants(x: Tensor) -> Tensor:
    return torch.linalg.slogdet(positive_definite(x))[1][:, None]


def standardised(weight: Tensor) -> Tensor:
    variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True, correction=0)
    return (weight - mean) * torch.rsqrt(variance + 1e-5)


def standardised_by_batch_norm(weight: Tensor) -> Tensor:
    return F.batch_norm(weight.flatten(1).unsqueeze(0), None, None, training=True).view_as(weight)


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


def symmetric() -> nn.Module:
    layer = nn.Linear(3, 3)
    register_parametrization(layer, "weight", Symmetric())
    return layer


def low_rank_with_magnitude(m: nn.Module, x: Tensor) -> Tensor:
    """DoRA (Liu et al. 2024): the direction of W + BA, with a magnitude of its own for each output."""
    weight = m.layer.weight + m.up @ m.down
    return F.linear(x, m.magnitude[:, None] * weight / weight.norm(dim=1, keepdim=True).detach(), m.layer.bias)


LAYERS: dict[str, Callable[[], Case]] = {
    # convolution and pooling
    "Conv3d": lambda: (nn.Conv3d(4, 4, 2, 2, 1, groups=2, padding_mode="reflect"), (rows(3, 4, 4, 4, 4),)),
    "Conv3d, channels last": lambda: (
        nn.Conv3d(2, 3, 2).to(memory_format=torch.channels_last_3d),
        (rows(3, 2, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d),),
    ),
    "Conv2d, replicated edges, channels last": lambda: (
        nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="replicate", groups=2) for _ in range(2))).to(
            memory_format=torch.channels_last
        ),
        (rows(3, 4, 4, 4).contiguous(memory_format=torch.channels_last),),
    ),
    "replicated and cropped edges": lambda: over_space(nn.ReplicationPad3d((2, -1, -1, 1, 0, 1)), 3),
    "replicated edges of one element": lambda: over_space(nn.ReplicationPad1d((2, 1)), 1, size=1),
    "ConvTranspose1d": lambda: (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (rows(3, 4, 3),)),
    "ConvTranspose3d": lambda: (nn.ConvTranspose3d(4, 6, 2, 2, 1, 1, groups=2), (rows(3, 4, 2, 2, 2),)),
    "pooling in one dimension": lambda: over_space(nn.Sequential(nn.MaxPool1d(2, 1), nn.AvgPool1d(2, 1)), 1),
    "pooling in two dimensions": lambda: over_space(
        nn.Sequential(nn.LPPool2d(2, 2, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(2, 1)), 2
    ),
    "pooling in three dimensions": lambda: over_space(nn.Sequential(nn.MaxPool3d(2, 1), nn.AvgPool3d(2, 1)), 3),
    "adaptive pooling in one dimension": lambda: over_space(
        nn.Sequential(nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(2)), 1
    ),
    "adaptive pooling in two dimensions": lambda: over_space(
        nn.Sequential(nn.AdaptiveAvgPool2d((None, 3)), nn.AdaptiveMaxPool2d(2)), 2
    ),
    "adaptive pooling in three dimensions": lambda: over_space(nn.AdaptiveAvgPool3d(2), 3),
    "linear and nearest resizing": lambda: over_space(
        nn.Sequential(nn.Upsample(7, mode="linear"), nn.Upsample(5, mode="nearest")), 1
    ),
    "bicubic, area and exact resizing": lambda: over_space(
        nn.Sequential(
            nn.Upsample(6, mode="bicubic"), nn.Upsample(4, mode="area"), nn.Upsample(5, mode="nearest-exact")
        ),
        2,
    ),
    "trilinear resizing": lambda: over_space(nn.Upsample(3, mode="trilinear", align_corners=True), 3),
    "a table of positions, resized": lambda: (
        Run(lambda m, x: x + F.interpolate(m.table, size=(4, 4), mode="bicubic"), table=free(1, 2, 3, 3)),
        (rows(3, 2, 4, 4),),
    ),
    "fold and unfold": lambda: (
        Run(lambda m, x: F.fold(m.layer(F.unfold(x, 2).mT).mT, (4, 4), 2), layer=nn.Linear(8, 8)),
        (rows(3, 2, 4, 4),),
    ),
    # norms and activations
    "InstanceNorm3d": lambda: over_space(nn.InstanceNorm3d(4, affine=True), 3),
    "InstanceNorm with fixed statistics": lambda: over_space(
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True).eval(), 1
    ),
    "activations": lambda: (
        nn.Sequential(
            nn.Linear(4, 8), nn.CELU(), nn.ELU(), nn.GELU(), nn.GLU(), nn.Hardswish(), nn.Hardtanh(), nn.LeakyReLU(),
            nn.LogSigmoid(), nn.Mish(), nn.ReLU6(), nn.SELU(), nn.SiLU(), nn.Softmin(-1), nn.Linear(4, 4),
            nn.Softplus(), nn.Softshrink(0.1), nn.Softsign(), nn.Tanhshrink(), nn.Threshold(-0.5, 2.0), nn.Linear(4, 4),
            nn.LogSoftmax(-1), nn.Hardshrink(0.1), nn.RReLU().eval(), nn.Linear(4, 2),
        ),
        (rows(3, 4),),
    ),
    # sequences
    "LSTM in both directions, stacked": lambda: (
        Run(lambda m, x: m.net(x)[0], net=nn.LSTM(3, 3, 2, bidirectional=True, batch_first=True)),
        (rows(3, 3, 3),),
    ),
    "LSTM with a projection": lambda: (
        Run(lambda m, x: m.net(x)[0], net=nn.LSTM(3, 4, proj_size=2, batch_first=True)),
        (rows(3, 3, 3),),
    ),
    "cells": lambda: (
        Run(
            lambda m, x: m.gru(m.lstm(m.rnn(x[:, 0]))[0], x[:, 1]),
            rnn=nn.RNNCell(3, 3),
            lstm=nn.LSTMCell(3, 3),
            gru=nn.GRUCell(3, 3),
        ),
        (rows(3, 3, 3),),
    ),
    "attention over another sequence": lambda: (
        Run(
            lambda m, x, y: m.net(x, y, y)[0],
            net=nn.MultiheadAttention(4, 2, batch_first=True, kdim=3, vdim=3, add_bias_kv=True, add_zero_attn=True),
        ),
        (rows(4, 4, 4), rows(4, 3, 3)),
    ),
    "attention with padding": lambda: (
        Run(
            lambda m, x, mask: m.net(x, x, x, key_padding_mask=mask)[0],
            net=nn.MultiheadAttention(4, 2, batch_first=True),
        ),
        (rows(3, 4, 4), torch.arange(4) >= torch.tensor([[4], [2], [3]])),
    ),
    "Transformer": lambda: (nn.Transformer(4, 2, 1, 1, 8, 0.0, batch_first=True), (rows(4, 4, 4), rows(4, 3, 4))),
    # parameters that are computed, or used in unusual ways
    "spectral norm in eval mode": lambda: (parametrizations.spectral_norm(nn.Linear(3, 3)).eval(), (rows(3, 3),)),
    "symmetric weight": lambda: (symmetric(), (rows(3, 3),)),
    "orthogonal weight": lambda: (parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley"), (rows(3, 3),)),
    "standardised weight": lambda: (
        Run(lambda m, x: F.conv2d(x, standardised(m.weight)), weight=free(3, 2, 2, 2)),
        (rows(3, 2, 3, 3),),
    ),
    "weight standardised by batch norm": lambda: (
        Run(lambda m, x: F.conv2d(x, standardised_by_batch_norm(m.weight)), weight=free(3, 2, 2, 2)),
        (rows(3, 2, 3, 3),),
    ),
    "low rank with a magnitude": lambda: (
        Run(low_rank_with_magnitude, layer=nn.Linear(3, 4), up=free(4, 2), down=free(2, 3), magnitude=free(4)),
        (rows(3, 3, 3),),
    ),
    "Kronecker product": lambda: (
        Run(lambda m, x: x @ torch.kron(m.a, m.b), a=free(2, 2), b=free(2, 2)),
        (rows(3, 4),),
    ),
    "rows of a computed table": lambda: (
        Run(lambda m, x: x @ torch.tanh(m.table)[torch.tensor([[0, 1, 1], [2, 0, 1]])].sum(0), table=free(3, 3)),
        (rows(3, 3),),
    ),
    "spectrum of a filter": lambda: (
        Run(lambda m, x: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(m.filter), n=5), filter=free(5)),
        (rows(3, 5),),
    ),
    "diagonals": lambda: (
        Run(lambda m, x: (x * m.a.diagonal()) @ torch.diag_embed(m.b), a=free(3, 3), b=free(3)),
        (rows(3, 3),),
    ),
    "diagonal of each sample": lambda: (
        Run(lambda m, x: m.layer(x).diagonal(dim1=1, dim2=2), layer=nn.Linear(3, 3)),
        (rows(3, 3, 3),),
    ),
    "inverse and solution with parameters": lambda: (
        Run(
            lambda m, x: torch.linalg.solve(positive_definite(m.a), (x @ positive_definite(m.b).inverse()).mT).mT,
            a=free(3, 3),
            b=free(3, 3),
        ),
        (rows(3, 3),),
    ),
    "Cholesky factor of a parameter": lambda: (
        Run(lambda m, x: x @ torch.linalg.cholesky(positive_definite(m.a)), a=free(3, 3)),
        (rows(3, 3),),
    ),
    "decompositions of each sample": lambda: (
        Run(
            lambda m, x: torch.linalg.svdvals(m.layer(x)) * log_determinants(m.layer(x)),
            layer=nn.Linear(3, 3),
        ),
        (rows(3, 3, 3),),
    ),
    "order statistics": lambda: (
        Run(
            lambda m, x: torch.stack(
                [m.layer(x).median(-1)[0], m.layer(x).kthvalue(2, -1)[0], m.layer(x).quantile(0.3, -1)], -1
            ),
            layer=nn.Linear(3, 3),
        ),
        (rows(3, 3),),
    ),
    "distances within a sample": lambda: (
        Run(lambda m, x: torch.cdist(m.layer(x), x), layer=nn.Linear(3, 3)),
        (rows(3, 4, 3),),
    ),
    "parameters of no axis, twice": lambda: (Run(lambda m, x: (x * m.a + m.a.exp()) ** 2, a=free()), (rows(3, 3),)),
    "parameters in a list": lambda: (
        Run(lambda m, x: sum(p * x for p in m.weights), weights=nn.ParameterList([free(3), free(3)])),
        (rows(3, 3),),
    ),
    "a mapped module": lambda: (Run(lambda m, x: torch.vmap(m.layer)(x), layer=nn.Linear(3, 3)), (rows(3, 3),)),
    "experts of which each sample takes one": lambda: (
        Run(
            lambda m, x: torch.stack([e(x) for e in m.experts], 1)[torch.arange(len(x)), m.gate(x).argmax(-1)]
            * m.gate(x).softmax(-1).amax(-1, keepdim=True),
            experts=nn.ModuleList([nn.Linear(3, 3) for _ in range(3)]),
            gate=nn.Linear(3, 3),
        ),
        (rows(4, 3),),
    ),
}  # fmt: skip
