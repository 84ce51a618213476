"""No sample adds more than `sensitivity`, whatever it holds: data is searched for that cancels, overflows, underflows.

Every attack is a climb: what a sample adds to the gradient of one program's weight, in units of that group's bound, is
made as large as small changes can. The sums with and without it are compared in float64.
"""

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from dpgraph import CompileOptions, dp_compile
from tests.arithmetic.programs import PROGRAMS, Programs, Sample
from tests.arithmetic.search import Attack, climb, draw_attack
from tests.nightly import IS_NIGHTLY

NUM_ATTACKS = 400 if IS_NIGHTLY else 18
NUM_TRIES = 8
# What the first climb to each program starts from.
ORDINARY = Attack("random", size=2.0, gradient=1.0, noise=0.0, unlike=0.0, seed=0)
# Powers of ten that data goes up and down to.
MOST = {torch.float32: 36, torch.float64: 160, torch.bfloat16: 36, torch.float16: 4}
STRATEGIES = ["ghost", "materialise"]
CLIPPINGS = ["auto-s", "auto-v", "abadi"]
# Every dtype and strategy, with the clipping functions by turns; the nightly run takes all of them.
CASES = [
    pytest.param(dtype, strategy, clipping, id=f"{str(dtype).removeprefix('torch.')}-{strategy}-{clipping}")
    for i, (dtype, strategy) in enumerate(itertools.product(MOST, STRATEGIES))
    for clipping in (CLIPPINGS if IS_NIGHTLY else [CLIPPINGS[i % len(CLIPPINGS)]])
]
nightly = pytest.mark.skipif(not IS_NIGHTLY, reason="takes its time")


class Target:
    """The compiled programs, and what a sample adds to their gradients."""

    def __init__(self, dtype: torch.dtype, **settings) -> None:
        self.dtype = dtype
        self.module = dp_compile(Programs().to(dtype), "full", grouping="per-param", **settings)
        self.bound = self.module.sensitivity / math.sqrt(len(PROGRAMS))
        self.others = [draw_attack(random.Random(i), most=0).sample(dtype) for i in range(2)]
        self.without = self.gradients(self.others)

    def gradients(self, samples: list[Sample]) -> list[Tensor]:
        """The sum over the samples for each program, in float64."""
        self.module.zero_grad()
        stacked = (torch.stack([getattr(sample, name) for sample in samples]) for name in ("x", "c", "ids"))
        self.module(*stacked).sum().backward()
        return [w.grad.double() for w in self.module.weights]

    def added(self, attack: Attack, program: int) -> float:
        """The norm of what the attack adds to the program's gradient, in units of its bound; checked for all."""
        found = self.gradients([*self.others, attack.sample(self.dtype)])
        moved = [(x - y).norm().item() / self.bound for x, y in zip(found, self.without, strict=True)]
        for name, norm in zip(PROGRAMS, moved, strict=True):
            assert norm <= 1, f"{attack} adds {norm} bounds to {name}"
        return moved[program]


def search(target: Target, seed: int) -> list[float]:
    """The most that was found to be added to each program."""
    source, worst = random.Random(seed), [0.0] * len(PROGRAMS)
    for i in range(NUM_ATTACKS):
        k = i % len(PROGRAMS)
        start = draw_attack(source, most=MOST[target.dtype]) if i >= len(PROGRAMS) else ORDINARY
        worst[k] = max(worst[k], climb(start, lambda attack, k=k: target.added(attack, k), source, NUM_TRIES))
    return worst


@pytest.mark.parametrize(("dtype", "strategy", "clipping"), CASES)
def test_no_attack_adds_more_than_the_sensitivity(dtype, strategy, clipping):
    options = CompileOptions(backend="eager", norm_strategy=strategy)
    worst = search(Target(dtype, clipping=clipping, options=options), seed=0)
    assert min(worst) > 0.9, "the search does not come near the bound"


@pytest.mark.inductor
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.bfloat16, marks=nightly),
        pytest.param(torch.float64, marks=nightly),
        pytest.param(torch.float16, marks=nightly),
    ],
    ids=str,
)
def test_no_attack_adds_more_than_the_sensitivity_as_compiled(dtype, strategy):
    worst = search(Target(dtype, clipping="auto-s", options=CompileOptions(norm_strategy=strategy)), seed=1)
    assert min(worst) > 0.9


# Where few samples are clipped, AUTO-S brings all of them to the bound.
FAR = [
    (1e-30, "abadi"),
    (1e30, "auto-s"),
    *([(1e-12, "abadi"), (1e12, "auto-s"), (1e30, "auto-v")] if IS_NIGHTLY else []),
]


@pytest.mark.parametrize(("max_grad_norm", "clipping"), FAR)
@pytest.mark.parametrize(
    "options", [CompileOptions(backend="eager"), pytest.param(CompileOptions(), marks=[pytest.mark.inductor, nightly])]
)
def test_bounds_far_from_one(max_grad_norm, clipping, options):
    worst = search(Target(torch.float32, clipping=clipping, max_grad_norm=max_grad_norm, options=options), seed=2)
    assert max(worst) > 0.9
