"""Biases are added where there is a place for one, and taken back."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, dp_compile
from tests.programs.exact import EAGER


class Scale(nn.Module):
    """A weight of any kind, and a place for a bias that it does not have."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point())
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


WEIGHTS = {"a number": torch.tensor(2.0), "whole numbers": torch.ones(4, dtype=torch.int8)}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_beside_which_no_bias_can_stand_get_none(weight):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), Scale(weight))
    module = dp_compile(model, "bitfit", add_biases=True, options=EAGER)
    module(torch.randn(5, 4)).sum().backward()
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight"]
    assert model[0].bias.grad is not None


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_a_model_without_a_place_for_a_bias_is_as_it_was(weight):
    model = Scale(weight)
    with pytest.raises(ArgumentError, match="trains no parameter"):
        dp_compile(model, "bitfit", add_biases=True, options=EAGER)
    assert list(model.state_dict()) == ["weight"]
