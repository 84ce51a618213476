"""Epsilon against closed forms and another accountant; calibration as its inverse."""

import math
import resource
import time
from statistics import NormalDist

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpgraph.errors import ArgumentError
from dpgraph.privacy import calibrate_noise_multiplier, epsilon
from dpgraph.privacy.bounds import ORDERS, renyi

USUAL = {"sampling_probability": 0.05, "noise_multiplier": 1.0, "steps": 20, "delta": 1e-5}
DIGITS = (2, 5, 10, 11, 15, 16, 100)


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


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta", "low", "high"),
    [
        (1.0, 1.0, 10**6, 1e-5, 5.04e5, 5.05e5),
        (1.0, 1e300, 1000, 1e-5, 0.0, 0.0),
        (0.01, 1e300, 1000, 1e-5, 0.0, 0.0),
        (0.01, 1e300, 1000, 1e-20, 0.0, 1e-8),
        (1e-7, 1.0, 10**7, 1e-5, 4e-4, 0.03),
        (1e-7, 1.0, 10**12, 1e-5, 0.1, 2.0),
        (0.01, 1.0, 1000, 1e-15, 5.0, 6.0),
        (0.01, 1.0, 1000, 1e-20, 6.0, 7.1),
        (1.0, 1.0, 1, 1e-15, 8.16, 8.5),
        (1.0, 1.0, 1, 1e-300, 37.4, 37.6),
        (0.5, 1.0, 10**4, 1e-5, 1600, 1640),
        (0.5, 1.0, 10**9, 1e-5, 1e7, 6e8),
        (0.5, 1 / 64, 10**15, 1e-5, 1e15, 3e18),
        (0.3, 2.0, 2**53, 1e-300, 1e10, 2e15),
        (1 - 1e-12, 1.0, 10**6, 1e-5, 4e5, 5.05e5),
    ],
)
def test_extreme_arguments_get_an_answer_in_seconds(q, sigma, steps, delta, low, high):
    start = time.process_time()
    spent = epsilon(sampling_probability=q, noise_multiplier=sigma, steps=steps, delta=delta)
    assert low <= spent <= high
    assert time.process_time() - start < 20


def test_they_do_not_fill_the_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    epsilon(sampling_probability=1.0, noise_multiplier=1.0, steps=10**6, delta=1e-5)
    epsilon(sampling_probability=0.9, noise_multiplier=1.0, steps=10**5, delta=1e-5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # a gigabyte, in kilobytes


@pytest.mark.parametrize(("q", "steps"), [(1e-3, 10007), (0.02, 2500), (0.5, 1001)])
def test_a_long_run_is_composed_in_parts_that_make_up_the_whole(q, steps):
    accountant = PLDAccountant()
    accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(3.0)), steps)
    spent = epsilon(sampling_probability=q, noise_multiplier=3.0, steps=steps, delta=1e-6)
    assert spent == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-3)


@pytest.mark.parametrize(
    ("q", "sigma", "steps"), [(0.01, 1.0, 1000), (0.3, 4.0, 50), (1e-4, 0.7, 10**5), (0.9, 8.0, 9)]
)
@pytest.mark.parametrize("delta", [1e-5, 1e-12])
def test_the_renyi_bound_is_that_of_the_other_accountant(q, sigma, steps, delta):
    other = RdpAccountant(orders=ORDERS[:80])
    other.compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), steps)
    assert renyi(q, sigma, steps, delta) == pytest.approx(other.get_epsilon(delta), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("q", [0.001, 0.1, 1.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 10.0, 1e6])
def test_less_delta_is_more_epsilon_across_the_ways_to_account(q, sigma):
    spent = [
        epsilon(**{**USUAL, "sampling_probability": q, "noise_multiplier": sigma, "delta": 10.0**-d}) for d in DIGITS
    ]
    assert spent == sorted(spent)
    assert all(math.isfinite(x) for x in spent)


def test_calibration_of_a_long_run_without_sampling():
    mechanism = {"sampling_probability": 1.0, "steps": 10**6, "delta": 1e-5}
    sigma = calibrate_noise_multiplier(target_epsilon=8.0, tolerance=1e-3, **mechanism)
    assert epsilon(noise_multiplier=sigma, **mechanism) <= 8.0
    assert epsilon(noise_multiplier=0.999 * sigma, **mechanism) > 8.0


def test_more_steps_than_can_be_told_apart_are_refused():
    with pytest.raises(ArgumentError, match="steps"):
        epsilon(**{**USUAL, "steps": 10**400})
