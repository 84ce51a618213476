"""Layers of torch.nn and ways to use parameters that the random programs do not draw, each against the loop."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, UnsoundProgramError, UnsupportedProgramError, dp_compile
from tests.models.layers import LAYERS, free, rows
from tests.models.run import Run
from tests.programs.exact import EAGER, check_exact


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 5, shape)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_exact(name):
    model, inputs = LAYERS[name]()
    check_exact(model.double(), *inputs, clipping="abadi", max_grad_norm=2.0)


def test_a_parameter_that_forward_does_not_use_gets_no_gradient():
    model = Run(lambda m, x: m.used(x), used=nn.Linear(3, 3), idle=nn.Linear(3, 3)).double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    module(rows(4, 3)).sum().backward()
    assert model.idle.weight.grad is None
    assert model.used.weight.grad is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.fft.irfft(torch.fft.rfft(m.layer(x)) * torch.view_as_complex(m.w), n=4),
        lambda m, x: torch.cdist(m.layer(x), m.w),
    ],
    ids=["Fourier transform", "distances"],
)
def test_under_a_mean_loss(function):
    model = Run(function, layer=nn.Linear(4, 4), w=free(3, 2) if "fft" in function.__code__.co_names else free(3, 4))
    model, x = model.double(), rows(5, 4)
    losses = []
    for reduction in ("sum", "mean"):
        module = dp_compile(model, "full", loss_reduction=reduction, options=EAGER)
        loss = module(x).square().sum(1)
        (loss.mean() if reduction == "mean" else loss.sum()).backward()
        losses.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for a, b in zip(*losses, strict=True):
        torch.testing.assert_close(a, b)


def test_a_sample_whose_system_has_no_solution_touches_no_other():
    model = Run(lambda m, x: torch.linalg.inv(m.layer(x)), layer=nn.Linear(3, 3, bias=False)).double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = rows(3, 3, 3)
    x[1] = 0
    module(x).flatten(1).sum(1).nan_to_num().sum().backward()
    found = model.layer.weight.grad.clone()
    assert module.num_nonfinite == 1
    model.zero_grad()
    module(x[[0, 2]]).sum().backward()
    torch.testing.assert_close(found, model.layer.weight.grad)


REFUSED: dict[str, tuple[Callable[[], Any], Tensor, type[Exception], str]] = {
    "Embedding with max_norm": (
        lambda: nn.Embedding(5, 3, max_norm=1.0), ids(3, 3), UnsoundProgramError, "parameter 'weight'",
    ),
    "EmbeddingBag with max_norm": (
        lambda: nn.EmbeddingBag(5, 3, max_norm=1.0), ids(3, 3), UnsoundProgramError, "parameter 'weight'",
    ),
    "Embedding that scales by frequency": (
        lambda: nn.Embedding(5, 3, scale_grad_by_freq=True), ids(3, 3), UnsoundProgramError, "how often all samples",
    ),
    "Embedding with a sparse gradient": (
        lambda: nn.Embedding(5, 3, sparse=True), ids(3, 3), UnsupportedProgramError, "sparse",
    ),
    "InstanceNorm that keeps statistics": (
        lambda: nn.InstanceNorm1d(4, track_running_stats=True, affine=True), rows(3, 4, 4), UnsoundProgramError,
        "into 'running_mean'",
    ),
    "experts that gather their samples": (
        lambda: Run(
            lambda m, x: torch.zeros_like(x).index_add(
                0, torch.where(m.gate(x)[:, 0] > 0)[0], m.expert(x[torch.where(m.gate(x)[:, 0] > 0)[0]])
            ),
            gate=nn.Linear(3, 3),
            expert=nn.Linear(3, 3),
        ),
        rows(3, 3), UnsupportedProgramError, "nonzero",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_layers_are_refused(name):
    make, x, error, reason = REFUSED[name]
    with pytest.raises(error, match=reason):
        dp_compile(make().double(), "full", options=EAGER)(x)


def test_complex_parameters_are_refused():
    model = Run(
        lambda m, x: (m.layer(x) * m.phase).abs(),
        layer=nn.Linear(3, 3),
        phase=nn.Parameter(torch.ones(3, dtype=torch.complex128) * 1j),
    )
    with pytest.raises(ArgumentError, match="'phase' is complex"):
        dp_compile(model, "full", options=EAGER)
    check_exact(model.double(), rows(3, 3), mode="bitfit")
