"""What a call returned is after the backward what it was before."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dpgraph import CompileOptions, dp_compile
from tests.programs.exact import EAGER

B, T, D = 4, 2, 8


class ViewOfACopy(nn.Module):
    """Returns a copy of which the backward needs another view."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        y = self.first(x).clone()
        rows = y.view(-1, D)
        return y, self.second(rows).view(x.shape), rows.view(x.shape).sin()


class PartsOfACopy(ViewOfACopy):
    """The same of two parts of the copy."""

    def forward(self, x):
        y = self.first(x).clone()
        early, late = y.view(-1, T, D).split([1, 1], 1)
        return y, self.second(y.view(-1, D)).view(x.shape), early.sin() * late.cos()


class Both(nn.Module):
    """One compilation for both."""

    def __init__(self):
        super().__init__()
        self.each = nn.ModuleList([ViewOfACopy(), PartsOfACopy()])

    def forward(self, x):
        return tuple(m(x) for m in self.each)


BACKENDS = [EAGER, pytest.param(CompileOptions(verify="never"), marks=pytest.mark.inductor)]


@pytest.mark.parametrize("options", BACKENDS, ids=["eager", "inductor"])
def test_outputs_outlive_the_backward(options):
    model = Both().double()
    expected = tree_leaves(copy.deepcopy(model)(x := torch.randn(B, T, D, dtype=torch.float64)))
    module = dp_compile(model, "full", options=options)
    found = tree_leaves(module(x))
    sum(y.sin().flatten(1).sum(1) for y in found[1::3] + found[2::3]).sum().backward()
    torch.testing.assert_close(found, expected)
