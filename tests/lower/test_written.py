"""What the forward writes may not lie in memory that it reads under another name, in no call."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, dp_compile
from tests.programs.exact import EAGER, INDUCTOR

BACKENDS = pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)


class Counting(nn.Module):
    """Counts calls in an argument that all samples share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=torch.float64)
        self.register_buffer("shift", torch.ones(8, dtype=torch.float64))

    def forward(self, x: Tensor, calls: Tensor) -> Tensor:
        calls.add_(1)
        return self.layer(x + self.shift[:4]).sin()


@BACKENDS
def test_memory_that_is_shared_from_a_later_call_on(options):
    model = Counting()
    module = dp_compile(model, "full", batch_dims={"x": 0, "calls": None}, options=options)
    x = torch.randn(5, 4, dtype=torch.float64)
    module(x, torch.zeros(4, dtype=torch.float64)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    shared = {
        "'shift'": model.shift[2:6],
        "'layer.weight'": model.layer.weight.detach()[0],
        "the argument 'x'": torch.from_numpy(x.numpy()[0]),  # in a storage of its own
    }
    for name, calls in shared.items():
        with pytest.raises(ArgumentError, match=f"shares memory with {name}"):
            module(x, calls)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    whole = torch.zeros(12, dtype=torch.float64)
    model.shift = whole[4:]
    module(x, whole[:4]).sum().backward()
    assert whole.tolist() == [1.0] * 4 + [0.0] * 8


def test_a_trained_parameter_that_is_gone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module = dp_compile(model, "full", options=EAGER)
    x = torch.randn(5, 4)
    module(x).sum().backward()
    model[1].bias = None
    with pytest.raises(ArgumentError, match=r"'1.bias' was trained .* none of the model's now"):
        module(x)


def test_a_model_that_was_frozen_as_a_whole_may_be_called():
    model = nn.Linear(4, 3)
    module = dp_compile(model, "full", options=EAGER)
    model.requires_grad_(False)
    x = torch.randn(5, 4, requires_grad=True)
    torch.testing.assert_close(module(x), model(x))
