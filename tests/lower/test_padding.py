"""A batch of one is padded for the tracer, and what comes back is that of the one sample."""

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
