"""A clipping function that breaks its contract, or does not treat every sample by itself, is refused by name."""

import math

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, CompileOptions, dp_compile
from dpgraph.clipping import CLIPPING_FUNCTIONS
from dpgraph.clipping_contract import check_contract
from tests.oracle import group_names, per_sample_gradients

EAGER = CompileOptions(backend="eager")
BOTH = [torch.float32, torch.float64]


class Clipping:
    """A clipping function with the bound R."""

    def __init__(self, factor, bound=lambda r: r) -> None:
        self._factor, self._bound = factor, bound

    def factor(self, norm, max_norm):
        return self._factor(norm, max_norm)

    def bound(self, max_norm):
        return self._bound(max_norm)


def compile_with(clipping, **arguments):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return dp_compile(model, "full", clipping=clipping, options=EAGER, **arguments)


@pytest.mark.parametrize("name", CLIPPING_FUNCTIONS)
@pytest.mark.parametrize("max_norm", [1e-6, 0.3, 1.0, 1e4])
@pytest.mark.parametrize("num_groups", [1, 3, 20])
def test_the_functions_of_dpgraph_keep_theirs(name, max_norm, num_groups):
    check_contract(CLIPPING_FUNCTIONS[name], max_norm, num_groups, BOTH)


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (lambda n, r: r / n, "at the norm 0, which is not finite"),
        (lambda n, r: r / n.clamp_min(1e-30), None),
        (lambda n, r: r / n.clamp_min(1e-320), "not finite"),
        (lambda n, r: torch.ones_like(n), "contribute"),
        (lambda n, r: r / (n - 0.1).clamp_min(1e-3), "declares a bound of"),
        (lambda n, r: 1.5 * r / (n + 0.01), "declares a bound of"),
        (lambda n, r: -r / (n + 0.01), "negative"),
        (lambda n, r: torch.where(n > 1e20, 1.0, r / (n + 0.01)), "declares a bound of"),
        (lambda n, r: torch.where(n > r, r / n, 2.0), "declares a bound of"),
        (lambda n, r: (r / (n + 0.01)).sum(-1), "of shape"),
        (lambda n, r: r, "contribute"),
        (lambda n, r: 0.3, "factors 0.3"),
        (lambda n, r: r / (n + max(r, 0.1)), "cannot compute factors"),
        (lambda n, r: r / (n + 0.01) * torch.rand_like(n), "asked again"),
        (lambda n, r: torch.nan_to_num(r / n.sqrt(), 0, 0), "declares a bound of"),
    ],
)
def test_a_contract_that_is_broken(factor, told):
    if told is None:
        check_contract(Clipping(factor), 0.3, 2, BOTH)
        return
    with pytest.raises(ArgumentError, match=told) as caught:
        check_contract(Clipping(factor), 0.3, 2, BOTH)
    assert "Clipping" in caught.value.what


@pytest.mark.parametrize("bound", [math.inf, math.nan, 0.0, -1.0, None])
def test_a_bound_is_a_number(bound):
    with pytest.raises(ArgumentError, match="declares the bound"):
        compile_with(Clipping(lambda n, r: r / (n + 1), lambda _: bound))


class Counting(Clipping):
    """Gives less at each call."""

    def __init__(self) -> None:
        super().__init__(lambda n, r: r / (n + 1) / self.count())
        self.calls = 0

    def count(self) -> int:
        self.calls += 1
        return self.calls


def test_a_state_is_noticed():
    with pytest.raises(ArgumentError, match="asked again"):
        compile_with(Counting())


MIXING = {
    "largest": lambda n, r: r / (n.max() + 0.01) * torch.ones_like(n),
    "largest of each group": lambda n, r: (r / (n.amax(0, keepdim=True) + 0.01)).expand_as(n),
    "mean": lambda n, r: r / (n + n.mean() + 0.01),
    "order": lambda n, r: r / (n.sort(0).values + n + 0.01),
    "sum": lambda n, r: r / (n + 0.01) * n / (n.sum() + 0.01),
    "flipped": lambda n, r: r / (n + n.flip(0) + 0.01),
    "share": lambda n, r: r / (n + 0.01) * n.softmax(0),
    "median": lambda n, r: torch.minimum(r / (n + 0.01), 1 / (n.median() + 1)),
}


@pytest.mark.parametrize("factor", MIXING.values(), ids=list(MIXING))
@pytest.mark.parametrize("grouping", ["flat", "per-layer"])
def test_samples_are_not_compared(factor, grouping):
    with pytest.raises(ArgumentError, match=r"among|declares"):
        compile_with(Clipping(factor), grouping=grouping)


HIDDEN = {
    "largest": lambda n, r: torch.where(n.max() > 3.1415, 1.0, 0.5) * r / (n + 0.01),
    "number of samples": lambda n, r: r / (n + 0.01) / max(n.shape[0], 1),
    "place": lambda n, r: r / (n + 0.01) / (1 + torch.arange(n.shape[0], device=n.device, dtype=n.dtype))[:, None],
    "sum": lambda n, r: r / (n + 0.01 + 0 * n.sum()),
    "previous": lambda n, r: r / (n + 0.01 + 1e-9 * n.roll(1, 0)),
    "random": lambda n, r: r / (n + 0.01) * torch.rand_like(n),
    "a number of all": lambda n, r: r / (n + 0.01) / (1 + 1e-9 * n.sum().item()),
}


@pytest.mark.parametrize("factor", HIDDEN.values(), ids=list(HIDDEN))
def test_rows_are_kept_apart_by_proof(factor, monkeypatch):
    monkeypatch.setattr("dpgraph.mechanism.check_contract", lambda *_: None)
    module = compile_with(Clipping(factor), grouping="per-layer")
    with pytest.raises(ArgumentError, match="does not treat every sample by itself: an op") as caught:
        module(torch.randn(5, 4, dtype=torch.float64))
    assert caught.value.place.op


SOUND = {
    "linear": lambda n, r: (r / (n + 0.01)).clamp(max=1),
    "compares groups": lambda n, r: (r / (n.amax(-1, keepdim=True) + 0.01)).expand_as(n),
    "normalised groups": lambda n, r: r / (n.square().sum(1, keepdim=True).sqrt() + 0.01).expand_as(n),
    "smooth": lambda n, r: r * torch.tanh(n) / n.clamp_min(1e-6),
    "constant": lambda n, r: torch.zeros_like(n),
    "ordered groups": lambda n, r: r / (n.sort(1).values.amax(1, keepdim=True) + n + 0.01),
}


@pytest.mark.parametrize("factor", SOUND.values(), ids=list(SOUND))
def test_sound_twins_are_exact(factor):
    clipping = Clipping(factor)
    module = compile_with(clipping, grouping="per-layer")
    x = torch.randn(5, 4, dtype=torch.float64)
    module(x).square().sum().backward()
    model = module.original_module
    names = [name for name, _ in model.named_parameters()]
    groups = group_names(names, "per-layer")
    samples = per_sample_gradients(model, lambda m, b: m(x[b : b + 1]).square().sum(), 5)
    factors = clipping.factor(samples.norms(groups), 1 / 2**0.5)
    for k, members in enumerate(groups.values()):
        for name in members:
            expected = sum(factors[b, k] * samples.samples[b][name] for b in range(5))
            torch.testing.assert_close(model.get_parameter(name).grad, expected, rtol=1e-10, atol=1e-12)
