"""Hooks of submodules count from the call on that comes after them."""

import pytest
import torch
from torch import nn

from dpgraph import UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact


def compiled():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    module = dp_compile(model, "full", options=EAGER)
    check_exact(model, torch.randn(5, 4, dtype=torch.float64), module=module)
    return model, module


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_that_comes_later_counts_until_it_goes(when):
    model, module = compiled()
    if when == "after":
        handle = model[0].register_forward_hook(lambda layer, inputs, output: 3 * output)
    else:
        handle = model[0].register_forward_pre_hook(lambda layer, inputs: 3 * inputs[0])
    x = torch.randn(5, 4, dtype=torch.float64)
    check_exact(model, x, module=module)
    torch.testing.assert_close(module(x), model(x))
    handle.remove()
    torch.testing.assert_close(module(x), torch.tanh(model[0](x)))
    assert len(module._calls.compiler.rewritings) == 2


def test_a_hook_that_mixes_samples_is_refused_whenever_it_comes():
    model, module = compiled()
    model[0].register_forward_hook(lambda layer, inputs, output: output - output.mean(0))
    with pytest.raises(UnsoundProgramError):
        module(torch.randn(5, 4, dtype=torch.float64))
