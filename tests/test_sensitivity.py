"""Attacks on the bound: whatever one sample holds, adding it moves the clipped sum by at most R.

The sum of a batch without the sample is the reference; then the sample is added as it is, scaled by 1e6 or 1e-6, as
zeros, or with infinities and NaNs in it, and the loss of it is scaled as well.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from dpgraph import CompileOptions, dp_compile
from tests.models.architecture import Architecture, Batch
from tests.models.own import OWN
from tests.models.plain import CNN, MLP
from tests.models.transformers_zoo import TRANSFORMERS
from tests.nightly import IS_NIGHTLY

EAGER = CompileOptions(backend="eager")
CLIPPINGS, GROUPINGS = ("auto-s", "auto-v", "abadi"), ("flat", "per-layer", "per-param")
MECHANISMS = list(itertools.product(CLIPPINGS, GROUPINGS))
NUM_SAMPLES = 4
BOUND = 0.7

own = {a.name: a for a in OWN}
MODELS = [MLP, CNN, *TRANSFORMERS, own["gru classifier"], own["factorisation machine"]]
# Every model once, the mechanisms by turns; the nightly run takes all pairs.
CASES = (
    list(itertools.product(MODELS, MECHANISMS))
    if IS_NIGHTLY
    else [(model, MECHANISMS[i % len(MECHANISMS)]) for i, model in enumerate(MODELS)]
)


def attacks(batch: Batch, b: int) -> list[tuple[str, Batch, float]]:
    """Batches that differ in sample b alone, each with the factor of that sample's loss."""
    found = [("as it is", batch, 1.0)]
    found += [(f"loss times {c}", batch, c) for c in (1e6, 1e-6, 0.0, -1e20, math.inf, math.nan)]
    for name, x in batch.inputs.items():
        if name == "attention_mask":
            continue
        changes = {"of the first": x[:1], "all alike": x[b : b + 1] * 0 + x[b].flatten()[0]}
        if x.dtype.is_floating_point:
            changes |= {"zeros": 0 * x[:1], "times 1e6": 1e6 * x[b : b + 1], "times 1e30": 1e30 * x[b : b + 1]}
            changes |= {"infinite": poisoned(x[b : b + 1], math.inf), "not a number": poisoned(x[b : b + 1], math.nan)}
        for how, values in changes.items():
            changed = {**batch.inputs, name: torch.cat([x[:b], values, x[b + 1 :]])}
            found.append((f"{name} {how}", Batch(changed, batch.labels), 1.0))
    return found


def poisoned(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x.view(-1)[0] = value
    return x


def clipped_sum(architecture: Architecture, module, batch: Batch, b: int | None = None, factor: float = 1.0) -> Tensor:
    """The gradients of all parameters in one vector."""
    module.zero_grad()
    losses = architecture.losses(module, batch)
    factors = torch.ones_like(losses)
    if b is not None:
        factors[b] = factor
    (losses * factors).sum().backward()
    return torch.cat([p.grad.flatten().double() for p in module.parameters() if p.requires_grad])


def test_there_are_as_many_attacks_as_promised():
    torch.manual_seed(7)
    count = sum(len(attacks(model.batch(NUM_SAMPLES), b)) for model in MODELS for b in (0, NUM_SAMPLES - 1))
    assert len(MODELS) >= 10
    assert count >= 200
    assert {mechanism for _, mechanism in CASES} == set(MECHANISMS)


@pytest.mark.parametrize(("architecture", "mechanism"), CASES, ids=str)
def test_a_sample_moves_the_sum_by_no_more_than_the_bound(architecture, mechanism):
    clipping, grouping = mechanism
    model = architecture.build(torch.float32)
    module = dp_compile(model, "full", clipping=clipping, grouping=grouping, max_grad_norm=BOUND, options=EAGER)
    torch.manual_seed(7)
    batch = architecture.batch(NUM_SAMPLES)
    for b in (0, NUM_SAMPLES - 1):
        rest = [i for i in range(NUM_SAMPLES) if i != b]
        without = Batch({name: x[rest] for name, x in batch.inputs.items()}, batch.labels[rest])
        reference = clipped_sum(architecture, module, without)
        assert reference.isfinite().all()
        for how, attacked, factor in attacks(batch, b):
            moved = (clipped_sum(architecture, module, attacked, b, factor) - reference).norm().item()
            assert moved <= module.sensitivity, f"sample {b}, {how}: {moved}"
