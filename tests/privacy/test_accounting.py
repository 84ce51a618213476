"""Epsilon against closed forms and another accountant; calibration as its inverse."""

import math
from statistics import NormalDist

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from dpgraph.errors import ArgumentError
from dpgraph.privacy import calibrate_noise_multiplier, epsilon

USUAL = {"sampling_probability": 0.05, "noise_multiplier": 1.0, "steps": 20, "delta": 1e-5}


def delta_of_gaussian(sigma, epsilon):
    """Balle & Wang 2018 (arXiv:1805.06530), theorem 8: the exact delta of the Gaussian mechanism."""
    a, b = 1 / (2 * sigma), epsilon * sigma
    return normal_cdf(a - b) - math.exp(epsilon) * normal_cdf(-a - b)


def normal_cdf(x):
    # statistics.NormalDist loses the digits of the lower tail
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (0.5, 1), (2.0, 9), (5.0, 100), (0.2, 1)])
def test_without_sampling_it_is_the_gaussian_mechanism(sigma, steps):
    spent = epsilon(sampling_probability=1.0, noise_multiplier=sigma, steps=steps, delta=1e-5)
    # k steps with sigma are one step with sigma / sqrt(k)
    combined = sigma / math.sqrt(steps)
    assert delta_of_gaussian(combined, spent) <= 1e-5
    assert delta_of_gaussian(combined, 0.99 * spent) > 1e-5


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.01, 1.0, 1000), (0.05, 0.8, 50), (0.2, 2.0, 100)])
def test_it_is_tighter_than_renyi_accounting_and_not_by_much(q, sigma, steps):
    renyi = RdpAccountant()
    renyi.compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
    bound = renyi.get_epsilon(1e-5)
    assert 0.6 * bound < epsilon(sampling_probability=q, noise_multiplier=sigma, steps=steps, delta=1e-5) < bound


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"steps": 40}, 1),
        ({"sampling_probability": 0.1}, 1),
        ({"noise_multiplier": 2.0}, -1),
        ({"delta": 1e-3}, -1),
    ],
)
def test_it_grows_with_steps_and_sampling_and_falls_with_noise_and_delta(change, sign):
    usual, changed = epsilon(**USUAL), epsilon(**{**USUAL, **change})
    assert sign * (changed - usual) > 0


def test_no_steps_spend_nothing_and_no_noise_everything():
    assert epsilon(**{**USUAL, "steps": 0}) == 0
    assert epsilon(**{**USUAL, "noise_multiplier": 0.0}) == math.inf
    assert epsilon(**{**USUAL, "noise_multiplier": 1e-12}) == math.inf


def test_little_noise_is_accounted_on_a_coarser_grid_and_still_bounded():
    sigma = 0.04
    spent = epsilon(sampling_probability=1.0, noise_multiplier=sigma, steps=1, delta=1e-5)
    tail = NormalDist().inv_cdf(1 - 1e-5)
    # the privacy loss is normal with mean 1 / (2 sigma^2) and deviation 1 / sigma
    assert spent == pytest.approx(1 / (2 * sigma**2) + tail / sigma, rel=0.01)


@pytest.mark.parametrize(
    ("target", "q", "steps", "delta"),
    [(0.5, 1.0, 3, 1e-5), (1.0, 0.02, 40, 1e-6), (3.0, 0.3, 5, 1e-3), (20.0, 0.1, 1, 1e-8)],
)
def test_calibration_keeps_the_budget_and_wastes_little(target, q, steps, delta):
    mechanism = {"sampling_probability": q, "steps": steps, "delta": delta}
    sigma = calibrate_noise_multiplier(target_epsilon=target, tolerance=0.02, **mechanism)
    assert epsilon(noise_multiplier=sigma, **mechanism) <= target
    assert epsilon(noise_multiplier=sigma - 0.03, **mechanism) > target


def test_calibration_finds_small_multipliers():
    mechanism = {"sampling_probability": 0.01, "steps": 2, "delta": 1e-2}
    sigma = calibrate_noise_multiplier(target_epsilon=30, tolerance=0.02, **mechanism)
    assert 1 / 64 < sigma < 0.5
    assert epsilon(noise_multiplier=sigma, **mechanism) <= 30


def test_calibration_of_the_example():
    mechanism = {"sampling_probability": 256 / 7339, "steps": 57, "delta": 1e-5}
    sigma = calibrate_noise_multiplier(target_epsilon=8, tolerance=0.01, **mechanism)
    assert sigma == pytest.approx(0.577, abs=0.011)


def test_a_budget_that_no_noise_meets_is_refused():
    with pytest.raises(ArgumentError, match="target_epsilon"):
        calibrate_noise_multiplier(target_epsilon=1e6, sampling_probability=1.0, steps=1, delta=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_probability", 0.0),
        ("sampling_probability", 1.1),
        ("sampling_probability", math.nan),
        ("noise_multiplier", -0.1),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", math.inf),
        ("steps", -1),
        ("steps", 1.5),
        ("delta", 0.0),
        ("delta", True),
        ("delta", 1.0),
        ("delta", math.nan),
    ],
)
def test_unusable_arguments_are_named(name, value):
    with pytest.raises(ArgumentError) as caught:
        epsilon(**{**USUAL, name: value})
    assert name in caught.value.what
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_epsilon", 0.0),
        ("target_epsilon", math.nan),
        ("target_epsilon", math.inf),
        ("steps", 0),
        ("tolerance", 0.0),
    ],
)
def test_unusable_arguments_of_the_calibration_are_named(name, value):
    arguments = {"target_epsilon": 1.0, "sampling_probability": 0.1, "steps": 3, "delta": 1e-5, name: value}
    with pytest.raises(ArgumentError, match=name):
        calibrate_noise_multiplier(**arguments)
