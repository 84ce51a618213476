"""Sizes taken for public are named, a mean over one is warned about, and what a sample can stop is named."""

import inspect
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import PublicSizeWarning, dp_compile
from tests.programs.exact import EAGER
from tests.provenance.asserting import asserting


class Program(nn.Module):
    """A layer and a table, in whatever way a test is about."""

    def __init__(self, function) -> None:
        super().__init__()
        self.layer, self.table, self.function = nn.Linear(4, 4), nn.Embedding(9, 4), function

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.function(self, x) if mask is None else self.function(self, x, mask)


def run(function, *lengths: int, masked: bool = False, integers: bool = False):
    module = dp_compile(Program(function), "full", options=EAGER)
    for T in lengths:
        x = torch.randint(9, (3, T)) if integers else torch.randn(3, T, 4)
        module(x, *([torch.ones(3, T)] if masked else [])).sum().backward()
    return module.rewriting.assumptions


MEANS = {
    "mean": lambda m, x: m.layer(x).mean(1),
    "mean of all": lambda m, x: m.layer(x).mean((1, 2)),
    "sum by length": lambda m, x: m.layer(x).sum(1) / x.shape[1],
    "times a reciprocal": lambda m, x: m.layer(x).sum(1) * (1 / x.shape[1]),
    "by its root": lambda m, x: m.layer(x).sum(1) / x.shape[1] ** 0.5,
    "less one": lambda m, x: m.layer(x).sum(1) / (x.shape[1] - 1),
    "pool": lambda m, x: F.adaptive_avg_pool1d(m.layer(x).mT, 1)[..., 0],
    "instance norm": lambda m, x: F.instance_norm(m.layer(x).mT).square().sum(2),
    "before what is not linear": lambda m, x: m.layer(x.mean(1)).tanh(),
}


@pytest.mark.parametrize("function", MEANS.values(), ids=list(MEANS))
def test_a_mean_over_a_size_that_varies_is_warned_about_once(function):
    with pytest.warns(PublicSizeWarning, match="size of axis 1 of x to be public") as caught:
        found = run(function, 5, 7, 6)
    assert len([w for w in caught if w.category is PublicSizeWarning]) == 1
    assert caught[0].filename == __file__ or function is MEANS["by its root"]
    assert "Pad every batch to one length, or mask" in str(caught[0].message)
    assert [str(x) for x in found.public_sizes] == ["size of axis 1 of x"]
    assert found.means


OTHERS = {
    "sum": lambda m, x: m.layer(x).sum(1),
    "mean of features": lambda m, x: m.layer(x).mean(-1),
    "not trained": lambda m, x: m.layer(x).sum(1) + x.mean(1),
    "times length": lambda m, x: m.layer(x).sum(1) * x.shape[1],
}


@pytest.mark.parametrize("function", OTHERS.values(), ids=list(OTHERS))
def test_what_is_no_mean_over_it_is_not(function):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PublicSizeWarning)
        found = run(function, 5, 7)
    assert [str(x) for x in found.public_sizes] == ["size of axis 1 of x"]
    assert found.means == ()


def test_a_mask_takes_the_length_away():
    def masked_mean(m, x, mask):
        return (m.layer(x) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error", PublicSizeWarning)
        found = run(masked_mean, 5, 7, masked=True)
    assert [str(x) for x in found.public_sizes] == ["size of axis 1 of x", "size of axis 1 of mask"]


def test_one_length_is_no_size_that_varies():
    with warnings.catch_warnings():
        warnings.simplefilter("error", PublicSizeWarning)
        assert run(MEANS["mean"], 5, 5).public_sizes == ()


STOPS = {
    "lookup": (lambda m, x: m.table(x).sum(1), True),
    "index": (lambda m, x: m.layer.weight[(x[..., 0] > 0).long()].sum(1), False),
    "gather": (lambda m, x: m.layer(x).gather(2, (x > 0).long()), False),
    "eigenvalues": (lambda m, x: torch.linalg.eigvalsh(m.layer(x[:, :4])), False),
    "assertion": (asserting, False),
}


@pytest.mark.parametrize(("function", "integers"), STOPS.values(), ids=list(STOPS))
def test_what_a_sample_can_stop_is_named(function, integers):
    found = run(function, 5, integers=integers)
    assert len(found.stops) == 1
    assert found.stops[0].line.filename in (__file__, inspect.getsourcefile(asserting))


def test_what_no_sample_decides_stops_nothing():
    def by_place(m, x):
        h = m.layer(x)
        return h[torch.arange(x.shape[0]), 0] + m.table(torch.arange(4)).sum(0) + h[:, torch.tensor([0, 2])].sum(1)

    assert [place.op for place in run(by_place, 5).stops if "iota" not in place.op] == []
