"""A batch of one is padded for the tracer, and what comes back is that of the one sample."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, INDUCTOR


class Reduced(nn.Module):
    """Returns a sum or a mean over the batch."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.layer, self.reduction = nn.Linear(4, 2), reduction

    def forward(self, x: Tensor) -> Tensor:
        losses = self.layer(x).square().sum(1)
        return losses.sum() if self.reduction == "sum" else losses.mean()


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_inputs_get_the_gradient_of_a_sum_once(reduction, options):
    model = Reduced(reduction).double()
    module = dp_compile(model, "full", loss_reduction=reduction, options=options)
    for num_samples in (3, 1):
        x = torch.randn(num_samples, 4, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(module(x), x)
        (expected,) = torch.autograd.grad(model(x), x)
        torch.testing.assert_close(found, expected)


class Sized(nn.Module):
    """Returns the sizes of what it is given, and numbers that follow from them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        sizes = {"shape": y.shape, "elements": y.numel(), "odd": 2 * len(x) + 1, "length": x.shape[1], "fixed": 2}
        tensors = [
            torch.tensor(len(x)),
            torch.arange(len(x)),
            1 / (torch.arange(len(x)).sum() + self.layer.bias.detach()),
        ]
        return y, sizes, [x.shape[1] / (len(x) + 1), len(x) * 1.5], tensors


@pytest.mark.parametrize(
    "options",
    [EAGER, replace(EAGER, batch="fixed"), pytest.param(INDUCTOR, marks=pytest.mark.inductor)],
    ids=["eager", "fixed", "inductor"],
)
def test_sizes_that_are_returned_are_those_of_the_samples(options):
    """Whoever divides a sum by a number of samples that counts padding trains with another gradient."""
    model = Sized()
    module = dp_compile(model, "full", options=options)
    for num_samples, length in ((3, 5), (3, 6), (1, 5), (0, 7), (3, 5)):
        x = torch.randn(num_samples, length, 4, dtype=torch.float64)
        outputs, sizes, quotients, tensors = module(x)
        expected = model(x)
        assert outputs.shape == expected[0].shape
        assert sizes == expected[1]
        assert type(sizes["shape"]) is torch.Size
        assert quotients == expected[2]
        torch.testing.assert_close(tensors, expected[3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_samples", [3, 1, 0])
def test_samples_that_are_divided_by_their_number_are_so_without_the_padding(num_samples):
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self.layer(x), x / len(x), x * len(x)

    model = Shares()
    module = dp_compile(model, "full", options=EAGER)
    for count in (3, num_samples):
        x = torch.randn(count, 4, dtype=torch.float64)
        for found, expected in zip(module(x), model(x), strict=True):
            torch.testing.assert_close(found, expected)


class Mixed(nn.Module):
    """Beside its outputs, figures over the batch, in which samples meet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        return y, x - x.mean(0), x.softmax(0), x @ x.T, x + len(x), (x > 0).sum()


@pytest.mark.parametrize("options", [EAGER, replace(EAGER, batch="fixed")], ids=["eager", "fixed"])
def test_figures_over_a_padded_batch_are_not_made_up(options):
    """They are right, or NaN in the right shape."""
    model = Mixed()
    if options.batch == "fixed":
        model.forward = lambda x: Mixed.forward(model, x)[:-1]  # sums are refused there
    module = dp_compile(model, "full", options=options)
    for num_samples in (3, 2, 1, 0):
        x = torch.randn(num_samples, 4, dtype=torch.float64)
        for found, expected in zip(module(x), model(x), strict=True):
            assert found.shape == expected.shape
            assert found.dtype == expected.dtype
            unknown = torch.isnan(found)
            torch.testing.assert_close(found[~unknown], expected[~unknown])
            assert not unknown.any() or num_samples < 2 or options.batch == "fixed"
        module(x)[0].sum().backward()
    assert model.layer.weight.grad is not None
