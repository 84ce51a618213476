"""Inductor captures numbers as the other backend does: what is data is refused, and shared ones are exact."""

import pytest
import torch
from torch import nn

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile
from tests.programs.exact import check_exact
from tests.soundness import numbers
from tests.soundness.pair import PAIRS, Program

INDUCTOR = CompileOptions(backend="inductor")
UNSOUND = [pair for pair in PAIRS if pair.unsound.__module__ == numbers.__name__ and "buffer" not in pair.name]


def test_they_are_found():
    assert len(UNSOUND) >= 20


@pytest.mark.parametrize("pair", UNSOUND, ids=str)
def test_numbers_that_come_from_data_are_refused(pair):
    model = Program(pair.unsound, **pair.parts).double()
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "full", options=INDUCTOR)(torch.randn(6, *pair.shape, dtype=torch.float64))
    assert "# mixes" in caught.value.place.line.code


class Together(nn.Module):
    """Numbers out of a buffer, as factors, bounds and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("public", torch.tensor([1, 0, 2, 3]))

    def forward(self, x):
        h, n = self.layer(x), self.public.max().item()
        cut = h[:, :n].sum(1, keepdim=True) + h[:, self.public > 0].sum(1, keepdim=True)
        scaled = h * self.public.sum().item() / self.public.nonzero().shape[0] + torch.arange(n).sum()
        rows = self.public.repeat_interleave(self.public).sum()
        return cut + scaled.tanh() + rows + torch.full_like(h, float(n)) * x.shape[1]


def test_numbers_of_shared_values_are_exact():
    check_exact(Together().double(), torch.randn(6, 4, dtype=torch.float64), options=INDUCTOR)


def test_sizes_that_values_decide_count_as_one_in_a_report():
    module = check_exact(Together().double(), torch.randn(3, 4, dtype=torch.float64))
    assert module.report.memory.peak() > 0
    assert str(module.report)
