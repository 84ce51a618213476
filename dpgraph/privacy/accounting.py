"""Epsilon of a training run, and the noise that a given epsilon asks for.

The mechanism is the Poisson-sampled Gaussian, composed over the steps; neighbouring data sets differ by adding or
removing one record. Both functions use the privacy loss distributions of `dp_accounting`, rounded pessimistically:
the epsilon is an upper bound that is tight up to the discretisation.

Sources: Koskela et al. 2020 (arXiv:1906.03049), Gopi et al. 2021 (arXiv:2106.02848), Doroshenko et al. 2022
(arXiv:2207.04380).
"""

import math
from collections.abc import Callable

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, calibrate_dp_mechanism
from dp_accounting.mechanism_calibration import ExplicitBracketInterval
from dp_accounting.pld import PLDAccountant

from dpgraph.errors import ArgumentError
from dpgraph.privacy.validation import require_count, require_non_negative, require_positive, require_probability

__all__ = ["calibrate_noise_multiplier", "epsilon"]

LARGEST_NOISE_MULTIPLIER = 2.0**20
SMALLEST_NOISE_MULTIPLIER = 2.0**-6
GRID = 1e-4  # of privacy losses; dp_accounting's own default


def epsilon(*, sampling_probability: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """The epsilon that `steps` steps have spent at `delta`.

    Args:
        sampling_probability: q in (0, 1], of a record to be in a step's batch.
        noise_multiplier: sigma, the standard deviation of the noise divided by the sensitivity, at least 0.
        steps: how many noisy steps were taken, at least 0.
        delta: in (0, 1).

    Returns:
        An upper bound on epsilon: 0 for no steps, infinity for no noise (or next to none, below 1/64).

    Raises:
        ArgumentError: an argument is outside its range.

    >>> round(epsilon(sampling_probability=1.0, noise_multiplier=1.0, steps=1, delta=1e-5), 2)
    4.38
    """
    require_non_negative("noise_multiplier", noise_multiplier, why="epsilon is computed from it")
    _require_mechanism(sampling_probability, steps, delta)
    if steps == 0:
        return 0.0
    # below it the distributions fill the memory, and the epsilon (above 1,000) means nothing
    if noise_multiplier < SMALLEST_NOISE_MULTIPLIER:
        return math.inf
    accountant = _accountant(noise_multiplier)
    return float(accountant.compose(_event(noise_multiplier, sampling_probability, steps)).get_epsilon(delta))


def calibrate_noise_multiplier(
    *, target_epsilon: float, sampling_probability: float, steps: int, delta: float, tolerance: float = 1e-3
) -> float:
    """The smallest noise multiplier, up to `tolerance`, with which `steps` steps spend at most `target_epsilon`.

    Args:
        target_epsilon: finite and above 0.
        sampling_probability: q in (0, 1], of a record to be in a step's batch.
        steps: how many noisy steps will be taken, at least 1.
        delta: in (0, 1).
        tolerance: how far above the smallest sufficient multiplier the result may be.

    Returns:
        sigma, with `epsilon(noise_multiplier=sigma, ...) <= target_epsilon`.

    Raises:
        ArgumentError: an argument is outside its range, or no multiplier from 1/64 to 2^20 meets the target.
    """
    require_positive("target_epsilon", target_epsilon, why="it is the budget that the noise must keep")
    require_positive("tolerance", tolerance, why="the search ends when it is reached")
    _require_mechanism(sampling_probability, steps, delta, min_steps=1)

    def spent(sigma: float) -> float:
        event = _event(sigma, sampling_probability, steps)
        return float(_accountant(sigma, coarser=2).compose(event).get_epsilon(delta))

    lower, upper = _find_bracket(spent, target_epsilon)
    # one grid for the whole search, or the function to invert would jump; a coarser one than in `epsilon`, for speed
    sigma = calibrate_dp_mechanism(
        lambda: _accountant(lower, coarser=2),
        lambda sigma: _event(sigma, sampling_probability, steps),
        target_epsilon,
        delta,
        ExplicitBracketInterval(lower, upper),
        tol=tolerance,
    )
    return float(sigma)


def _find_bracket(spent: Callable[[float], float], target: float) -> tuple[float, float]:
    """Two multipliers, a factor of 2 apart, of which the first spends more than the target and the second does not."""
    sigma = 1.0
    if spent(sigma) > target:
        while sigma < LARGEST_NOISE_MULTIPLIER:
            sigma *= 2
            if spent(sigma) <= target:
                return sigma / 2, sigma
    else:
        while sigma > SMALLEST_NOISE_MULTIPLIER:
            sigma /= 2
            if spent(sigma) > target:
                return sigma, 2 * sigma
    raise ArgumentError(
        f"no noise multiplier from 1/64 to 2^20 spends just target_epsilon = {target!r}",
        why="the noise would be none to speak of, or would leave nothing of the gradients",
        fix="choose a target_epsilon between 0.01 and 100, or another number of steps",
    )


def _event(noise_multiplier: float, sampling_probability: float, steps: int) -> SelfComposedDpEvent:
    step = PoissonSampledDpEvent(sampling_probability, GaussianDpEvent(noise_multiplier))
    return SelfComposedDpEvent(step, steps)


def _accountant(noise_multiplier: float, coarser: int = 0) -> PLDAccountant:
    """An accountant whose grid is the coarser, the larger the losses are: less memory, and still an upper bound.

    Grids differ by powers of two and so are nested: the epsilon of a coarser one bounds that of a finer one.
    `coarser` more doublings are granted where the noise is small; they cost a few thousandths of epsilon.
    """
    # a step's losses grow as 1 / (2 sigma^2)
    doublings = max(0, math.ceil(-2 * math.log2(2 * noise_multiplier)))
    if noise_multiplier < 4:
        doublings += coarser
    return PLDAccountant(value_discretization_interval=GRID * 2**doublings)


def _require_mechanism(sampling_probability: float, steps: int, delta: float, min_steps: int = 0) -> None:
    require_probability(
        "sampling_probability",
        sampling_probability,
        may_be_one=True,
        why="amplification by sampling is computed from this probability",
    )
    require_probability(
        "delta", delta, may_be_one=False, why="it is the probability with which the epsilon may be exceeded"
    )
    require_count("steps", steps, minimum=min_steps, why="every step spends privacy")
