"""Poisson batches: independent records, every size, and parts that keep every record once."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpgraph.errors import ArgumentError
from dpgraph.privacy import PoissonSampler, split_batch


def draw(num_records, q, steps, seed=0):
    sampler = PoissonSampler(num_records, q, steps, generator=torch.Generator().manual_seed(seed))
    drawn = torch.zeros(steps, num_records)
    for step, batch in enumerate(sampler):
        drawn[step, batch] = 1
    return drawn


@pytest.mark.parametrize("q", [0.03, 0.5, 0.97])
def test_each_record_is_drawn_with_the_probability(q):
    num_records, steps = 200, 2000
    drawn = draw(num_records, q, steps)
    share = drawn.mean(0)
    # 5 standard deviations, for 200 records: one false alarm in ten thousand seeds, and the seed is fixed
    assert (share - q).abs().max() < 5 * math.sqrt(q * (1 - q) / steps)
    assert abs(float(drawn.mean()) - q) < 5 * math.sqrt(q * (1 - q) / drawn.numel())


def test_batch_sizes_are_binomial():
    num_records, q, steps = 100, 0.2, 4000
    sizes = draw(num_records, q, steps).sum(1)
    variance = num_records * q * (1 - q)
    # the sample variance of n binomial draws varies by about sqrt(2 / n) of itself
    assert float(sizes.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / steps))


def test_records_and_steps_are_independent():
    steps = 4000
    drawn = draw(12, 0.4, steps)
    centred = drawn - drawn.mean(0)
    covariance = centred.T @ centred / steps
    off_diagonal = covariance - torch.diag(covariance.diag())
    assert off_diagonal.abs().max() < 5 * 0.24 / math.sqrt(steps)
    between_steps = (centred[1:] * centred[:-1]).mean(0)
    assert between_steps.abs().max() < 5 * 0.24 / math.sqrt(steps)


def test_empty_batches_are_yielded():
    batches = list(PoissonSampler(3, 1e-6, 20, generator=torch.Generator().manual_seed(0)))
    assert len(batches) == 20
    assert all(batch.shape == (0,) and batch.dtype == torch.int64 for batch in batches)


def test_probability_one_draws_everything():
    assert [batch.tolist() for batch in PoissonSampler(3, 1, 2)] == [[0, 1, 2]] * 2


def test_a_generator_repeats_a_run_and_iterating_again_goes_on():
    first, second = (PoissonSampler(50, 0.5, 3, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert [b.tolist() for b in first] == [b.tolist() for b in second]
    again = [b.tolist() for b in first]
    assert again != [b.tolist() for b in PoissonSampler(50, 0.5, 3, generator=torch.Generator().manual_seed(7))]


def test_the_default_is_not_the_global_seed():
    torch.manual_seed(0)
    first = next(iter(PoissonSampler(200, 0.5, 1)))
    torch.manual_seed(0)
    assert first.tolist() != next(iter(PoissonSampler(200, 0.5, 1))).tolist()


def test_length_and_expected_batch_size():
    sampler = PoissonSampler(1000, 0.25, 9)
    assert (len(sampler), sampler.expected_batch_size) == (9, 250.0)


@given(size=st.integers(0, 60), max_size=st.integers(1, 70))
def test_parts_hold_every_record_once_and_no_more_than_allowed(size, max_size):
    batch = torch.arange(size) * 3
    parts = split_batch(batch, max_size)
    assert list(itertools.chain(*(part.tolist() for part in parts))) == batch.tolist()
    assert len(parts) == max(1, math.ceil(size / max_size))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= max_size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 0.5, 1), "num_records"),
        ((2.5, 0.5, 1), "num_records"),
        ((True, 0.5, 1), "num_records"),
        ((10, 0.0, 1), "sampling_probability"),
        ((10, 1.5, 1), "sampling_probability"),
        ((10, float("nan"), 1), "sampling_probability"),
        ((10, True, 1), "sampling_probability"),
        ((10, "half", 1), "sampling_probability"),
        ((10, 0.5, -1), "steps"),
    ],
)
def test_unusable_arguments_are_named(arguments, named):
    with pytest.raises(ArgumentError) as caught:
        PoissonSampler(*arguments)
    assert named in caught.value.what
    assert caught.value.why
    assert named in caught.value.fix or "whole number" in caught.value.fix


@pytest.mark.parametrize("max_size", [0, -1, 2.0, None])
def test_unusable_part_sizes_are_named(max_size):
    with pytest.raises(ArgumentError, match="max_size"):
        split_batch(torch.arange(3), max_size)
