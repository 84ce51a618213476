"""What the forward writes in place, by what it writes into; and values of parameters alone that have a gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from dpgraph import DPGraphError, UnsoundProgramError, UnsupportedProgramError, dp_compile
from tests.programs.exact import EAGER


class Program(nn.Module):
    """A layer, a buffer, and what is done before the layer."""

    def __init__(self, write) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(4))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self, x)
        return self.layer(x)


def refused(model: nn.Module, error: type[DPGraphError], match: str, mode: str = "full") -> DPGraphError:
    with pytest.raises(error, match=match) as caught:
        dp_compile(model, mode, options=EAGER)(torch.randn(5, 4))
    assert caught.value.place.line is not None
    assert type(caught.value) is error
    return caught.value


def clamp(m: Program, _: Tensor) -> None:
    with torch.no_grad():
        m.layer.weight.clamp_(-0.2, 0.2)


def clamp_data(m: Program, _: Tensor) -> None:
    m.layer.weight.data.clamp_(-0.2, 0.2)


def centre(m: Program, x: Tensor) -> None:
    with torch.no_grad():
        m.layer.weight.sub_(x.mean())


@pytest.mark.parametrize("mode", ["full", "bitfit"])
@pytest.mark.parametrize("write", [clamp, clamp_data])
def test_a_parameter_that_the_forward_writes(write, mode):
    """Trained or frozen: torch would leave a frozen one that is no leaf any more."""
    model = Program(write)
    before = model.layer.weight.detach().clone()
    error = refused(model, UnsupportedProgramError, r"into the parameter 'layer.weight'", mode)
    assert "after the optimizer's step" in error.fix
    assert torch.equal(model.layer.weight, before)
    assert model.layer.weight.is_leaf


@pytest.mark.parametrize("mode", ["full", "bitfit"])
def test_a_parameter_that_the_forward_writes_with_samples(mode):
    refused(Program(centre), UnsoundProgramError, "depends on the samples into the parameter 'layer.weight'", mode)


def test_an_argument_that_the_forward_writes():
    error = refused(Program(lambda _, x: x.mul_(2)), UnsoundProgramError, "into the argument 'x'")
    assert "clone()" in error.fix


def test_a_buffer_that_the_forward_writes():
    error = refused(Program(lambda m, x: m.kept.add_(x.sum(0))), UnsoundProgramError, "into 'kept'")
    assert "public data" in error.fix


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).T


class Cached(nn.Module):
    """A weight that is computed once for two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = parametrize.register_parametrization(nn.Linear(4, 4), "weight", Symmetric())

    def forward(self, x: Tensor) -> Tensor:
        with parametrize.cached():
            return self.layer(x) + self.layer(2 * x)


def test_what_a_hook_or_a_cache_makes_of_parameters():
    """The advice is about what was made of them, and not about the batch."""
    pruned = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    for model in (pruned, Cached()):
        error = refused(model, UnsoundProgramError, "of parameters alone what the forward returns or keeps")
        assert "prune.remove()" in error.fix
        assert "parametrize.cached()" in error.fix
    prune.remove(pruned[0], "weight")
    dp_compile(pruned, "full", options=EAGER)(torch.randn(5, 4)).sum().backward()
    assert pruned[0].weight.grad is not None
