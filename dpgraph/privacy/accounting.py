"""Epsilon of a training run, and the noise that a given epsilon asks for.

The mechanism is the Poisson-sampled Gaussian, composed over the steps; neighbouring data sets differ by adding or
removing one record. Both functions use the smallest of the upper bounds in `dpgraph.privacy.bounds`: with sampling that
is nearly always the privacy loss distribution, tight up to its grid; without, a closed form.
"""

import math
from collections.abc import Callable

from dpgraph.checks import require_count, require_non_negative, require_positive, require_probability
from dpgraph.errors import ArgumentError
from dpgraph.privacy.bounds import choose_grid, loss_distribution, renyi, without_sampling

__all__ = ["calibrate_noise_multiplier", "epsilon"]

LARGEST_NOISE_MULTIPLIER = 2.0**20
SMALLEST_NOISE_MULTIPLIER = 2.0**-6
MOST_STEPS = 2**53


def epsilon(*, sampling_probability: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """The epsilon that `steps` steps have spent at `delta`.

    Args:
        sampling_probability: q in (0, 1], of a record to be in a step's batch.
        noise_multiplier: sigma, the standard deviation of the noise divided by the sensitivity, at least 0.
        steps: how many noisy steps were taken, at least 0.
        delta: in (0, 1). Below 1e-10 the bound is a coarser one, by up to a half.

    Returns:
        An upper bound on epsilon: 0 for no steps, infinity for no noise (or next to none, below 1/64). It takes seconds
        at the most, and less than a gigabyte, whatever the arguments.

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
    return _spent(sampling_probability, noise_multiplier, steps, delta)


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

    def spent(sigma: float, grid_of: float | None = None) -> float:
        return _spent(sampling_probability, sigma, steps, delta, grid_of=grid_of or sigma, coarser=2)

    lower, upper = _find_bracket(spent, target_epsilon)
    # one grid for the whole search, or the function to invert would jump; a coarser one than in `epsilon`, for speed
    smallest = lower
    if spent(upper, smallest) > target_epsilon:
        return upper  # which is within reach on its own grid alone
    while upper - lower > tolerance:
        middle = (lower + upper) / 2
        if spent(middle, smallest) <= target_epsilon:
            upper = middle
        else:
            lower = middle
    return upper


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


def _spent(
    q: float, sigma: float, steps: int, delta: float, *, grid_of: float | None = None, coarser: int = 0
) -> float:
    """The smallest upper bound on epsilon; the grid is the one for `grid_of`, a multiplier of at most `sigma`."""
    plain = without_sampling(sigma, steps, delta)
    if q == 1 or plain == 0:
        return plain
    bounds = [plain, renyi(q, sigma, steps, delta)]
    grid = choose_grid(q, grid_of or sigma, steps, coarser=coarser)
    if grid is not None:
        bounds.append(loss_distribution(q, sigma, steps, delta, grid))
    return min(bounds)


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
    if steps > MOST_STEPS:
        raise ArgumentError(
            f"steps is {steps!r}",
            why="every step spends privacy, and so many are not told apart any more",
            fix="give the number of noisy steps, at most 2^53",
        )
