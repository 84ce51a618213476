"""Three upper bounds on the epsilon of the Poisson-sampled Gaussian mechanism: the smallest of them holds.

| bound | tight | costs | where it gives nothing |
| --- | --- | --- | --- |
| `without_sampling` | at q = 1 | nothing | far above the truth for small q |
| `renyi` | within a few tenths of itself | nothing | epsilon below log(1 / delta) / 65,536 |
| `loss_distribution` | up to its grid | seconds | delta below 1e-10, losses too large for its grid |

q is the probability of a record to be in a step's batch, sigma the noise multiplier. Neighbouring data sets differ by
adding or removing one record.

Sources: Balle & Wang 2018 (arXiv:1805.06530), theorem 8, for the first; Mironov et al. 2019 (arXiv:1908.10530), section
3.3, and Canonne et al. 2020 (arXiv:2004.00010), proposition 12, for the second; Koskela et al. 2020 (arXiv:1906.03049)
and Doroshenko et al. 2022 (arXiv:2207.04380) for the third.
"""

import math
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = ["choose_grid", "loss_distribution", "renyi", "without_sampling"]

# What rounding does to a delta, a difference of numbers up to 1, must be small beside it.
SMALLEST_EXACT_DELTA = 1e-10
# More noise adds no more epsilon, and its square is a number.
LARGEST_SIGMA = 2.0**40
ORDERS = sorted({*range(2, 65), *(round(64 * 1.25**i) for i in range(1, 32)), 2**16})
# Grids of privacy losses; this is dp_accounting's own default.
FINEST_GRID = 1e-4
COARSEST_GRID = 2.0
LARGEST_SUPPORT = 2**22
CUT_OFF = 1e-15  # what dp_accounting leaves out of the tails of a composition
# Composed at once, the support of a long run is estimated by far too large.
STEPS_AT_ONCE = 1000


def without_sampling(sigma: float, steps: int, delta: float) -> float:
    """As if every record were in every batch: exact up to rounding then, for `steps` steps are one of less noise.

    For delta below 1e-10 the second, smaller part of the exact delta is left out.
    """
    combined = min(sigma / math.sqrt(steps), LARGEST_SIGMA)
    if math.erf(1 / (math.sqrt(8) * combined)) <= delta * (1 - 1e-6):
        return 0.0
    lower, upper = 0.0, 1.0
    while _delta_of_gaussian(combined, upper, delta) > delta:
        lower, upper = upper, 2 * upper
    while upper - lower > 1e-9 * upper and upper > 1e-12:
        middle = (lower + upper) / 2
        if _delta_of_gaussian(combined, middle, delta) <= delta:
            upper = middle
        else:
            lower = middle
    return upper


def _delta_of_gaussian(sigma: float, epsilon: float, wanted: float) -> float:
    """An upper bound on delta: P[N > x] - e^epsilon P[N > x + 1 / sigma] with x = epsilon sigma - 1 / (2 sigma)."""
    x = epsilon * sigma - 1 / (2 * sigma)
    first, second = (math.erfc(y / math.sqrt(2)) / 2 for y in (x, x + 1 / sigma))
    if wanted < SMALLEST_EXACT_DELTA or second == 0 or epsilon > 700:
        return first
    return (first - math.exp(epsilon) * second) * (1 + 1e-6)


def renyi(q: float, sigma: float, steps: int, delta: float) -> float:
    """By Renyi divergences log(1 + s) / (a - 1) of whole orders a, of which the best is taken.

    s is the sum over k from 2 to a of C(a, k) q^k (1 - q)^(a - k) (exp((k^2 - k) / (2 sigma^2)) - 1). All its terms
    are positive: nothing cancels, however small q is.
    """
    sigma = min(sigma, LARGEST_SIGMA)
    k = np.arange(1, ORDERS[-1] + 1, dtype=np.float64)
    exponents = (k[1:] ** 2 - k[1:]) / (2 * sigma**2)
    log_e = np.where(exponents < 30, np.log(np.expm1(np.minimum(exponents, 30))), exponents)
    found = math.inf
    for a in ORDERS:
        log_choose = np.cumsum(np.log((a - k[:a] + 1) / k[:a]))[1:]
        terms = log_choose + k[1:a] * math.log(q) + (a - k[1:a]) * math.log1p(-q) + log_e[: a - 1]
        divergence = np.logaddexp(0, np.logaddexp.reduce(terms)) / (a - 1)
        found = min(found, steps * float(divergence) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1))
    return max(0.0, found)


def choose_grid(q: float, sigma: float, steps: int, *, coarser: int = 0) -> float | None:
    """A grid of privacy losses on which `loss_distribution` takes seconds at the most; None if there is none of use.

    Grids differ by powers of two and so are nested: the epsilon of a coarser one bounds that of a finer one. A step's
    losses grow as 1 / (2 sigma^2), those of all steps are estimated by the other bounds. `coarser` more doublings are
    granted where the noise is small; they cost a few thousandths of epsilon.
    """
    doublings = max(0, math.ceil(-2 * math.log2(2 * sigma))) + (coarser if sigma < 4 else 0)
    largest_loss = min(without_sampling(sigma, steps, CUT_OFF), renyi(q, sigma, steps, CUT_OFF))
    needed = 2 * largest_loss / LARGEST_SUPPORT
    grid = FINEST_GRID * 2 ** max(doublings, math.ceil(math.log2(max(needed, FINEST_GRID) / FINEST_GRID)))
    return grid if grid <= COARSEST_GRID else None


def loss_distribution(q: float, sigma: float, steps: int, delta: float, grid: float) -> float:
    """By composing the distribution of a step's privacy loss, rounded to `grid` so that the bound holds.

    Infinite where delta is not above what is cut off the tails, 1e-15 for each composition.
    """
    if delta < SMALLEST_EXACT_DELTA:
        return math.inf
    step = _distributions().from_gaussian_mechanism(sigma, value_discretization_interval=grid, sampling_prob=q)
    return float(_composed(step, steps).get_epsilon_for_delta(delta))


def _distributions() -> ModuleType:
    """Of dp-accounting, without which sampling and noise work too."""
    try:
        return import_module("dp_accounting.pld.privacy_loss_distribution")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; accounting needs it: pip install 'dpgraph[privacy]'") from error


def _composed(step: "PrivacyLossDistribution", steps: int) -> "PrivacyLossDistribution":
    if steps <= STEPS_AT_ONCE:
        return step.self_compose(steps)
    root = math.isqrt(steps)
    whole = step.self_compose(root).self_compose(steps // root)
    rest = steps % root
    return whole.compose(step.self_compose(rest)) if rest else whole
