"""The contract of a clipping function, tried on numbers before anything is compiled.

What is tried is no proof: between two norms of the grid a function may do what it likes, which is why
`DPModule.certificate` names the bound of a function that is not dpgraph's own as taken on trust. That every sample's
factor depends on its own norms alone is proved, when the function is traced (`passes/insert_clip_factors.py`).
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from dpgraph.clipping import ClippingFunction
from dpgraph.errors import ArgumentError

__all__ = ["check_contract"]

WHY = "the clipping function is what bounds a sample's contribution, and the noise is scaled to that bound"
# A product of two rounded numbers.
ROUNDING = 8
NUM_DECADES = 40


def check_contract(clipping: ClippingFunction, max_norm: float, num_groups: int, dtypes: Iterable[torch.dtype]) -> None:
    """Try `norm * factor <= bound`, with factors that are finite and >= 0, from 0 to the largest norm of each dtype.

    Args:
        clipping: the function.
        max_norm: R, for each group.
        num_groups: K.
        dtypes: those that norms will have.

    Raises:
        ArgumentError: the function breaks its contract at some norm, gives other factors when it is asked again, or
            other ones to a sample among others than to the sample alone.
    """
    bound = clipping.bound(max_norm)
    if not (isinstance(bound, (int, float)) and math.isfinite(bound) and bound > 0):
        raise _broken(clipping, f"declares the bound {bound!r}", fix="return a finite number above 0 from `bound`")
    with torch.no_grad():
        for dtype in sorted(dtypes, key=str):
            norms = _tables(max_norm, num_groups, dtype)
            factors = _factors(clipping, norms, max_norm)
            _check_values(clipping, norms, factors, bound)
            _check_repeats(clipping, norms, factors, max_norm)
            _check_alone(clipping, norms, factors, max_norm)


def _tables(max_norm: float, num_groups: int, dtype: torch.dtype) -> Tensor:
    """Norms [N, K]: a grid in each group, beside norms of the other groups that are equal, none, R, or huge."""
    info = torch.finfo(dtype)
    decades = 10.0 ** torch.linspace(math.log10(info.smallest_normal), math.log10(info.max) - 0.1, NUM_DECADES)
    near = [max_norm * (1 + side * step) for step in (0.5, 0.1, info.eps) for side in (-1, 1)]
    values = [_smallest(dtype), info.smallest_normal, 1.0, max_norm, *near, *decades.double().tolist(), info.max]
    grid = torch.tensor([0.0, *sorted({min(v, info.max) for v in values})[::-1]], dtype=torch.float64).to(dtype)
    tables = [grid[:, None].expand(-1, num_groups)]
    for other in (0.0, min(max_norm, info.max), info.max / 4) if num_groups > 1 else ():
        table = torch.full((len(grid), num_groups), other, dtype=dtype)
        table[torch.arange(len(grid)), torch.arange(len(grid)) % num_groups] = grid
        tables.append(table)
    return torch.cat(tables)


def _factors(clipping: ClippingFunction, norms: Tensor, max_norm: float) -> Tensor:
    try:
        factors = clipping.factor(norms.clone(), torch.full_like(norms, max_norm))
    except (RuntimeError, TypeError, ValueError) as error:
        raise _broken(
            clipping,
            f"cannot compute factors: {error}",
            fix="take norm and max_norm for tensors of one shape, and compute with torch's functions alone: "
            "torch.where and torch.maximum in place of if and max",
        ) from error
    if not isinstance(factors, Tensor) or factors.shape != norms.shape:
        found = f"of shape {list(factors.shape)}" if isinstance(factors, Tensor) else repr(factors)
        raise _broken(
            clipping, f"gives factors {found} for norms {list(norms.shape)}", fix="give a factor for each of the norms"
        )
    return factors


def _check_values(clipping: ClippingFunction, norms: Tensor, factors: Tensor, bound: float) -> None:
    contributed = norms.double() * factors.double()
    allowed = bound * (1 + ROUNDING * torch.finfo(norms.dtype).eps) + norms.double() * _smallest(norms.dtype)
    for wrong, said in (
        (~torch.isfinite(factors), "gives the factor {factor:g} at the norm {norm:g}, which is not finite"),
        (factors < 0, "gives the factor {factor:g} at the norm {norm:g}, which is negative"),
        (
            contributed > allowed,
            "lets a gradient of norm {norm:g} contribute {contributed:g} (its factor is {factor:g}), and declares a "
            f"bound of {bound:g}",
        ),
    ):
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            numbers = {"factor": factors[at].item(), "norm": norms[at].item(), "contributed": contributed[at].item()}
            raise _broken(
                clipping,
                said.format(**numbers),
                fix="keep norm * factor <= bound for every norm from 0 on, with finite factors that are not negative",
            )


def _smallest(dtype: torch.dtype) -> float:
    """The smallest subnormal number; a factor is no more exact than that."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def _check_repeats(clipping: ClippingFunction, norms: Tensor, factors: Tensor, max_norm: float) -> None:
    if not torch.equal(_factors(clipping, norms, max_norm), factors):
        raise _broken(
            clipping,
            "gives other factors when it is asked again for the same norms",
            fix="let the factor be a function of the norm and of max_norm: nothing random, and no state that changes",
        )


def _check_alone(clipping: ClippingFunction, norms: Tensor, factors: Tensor, max_norm: float) -> None:
    """A proof follows when the function is traced; here its error comes before any model is run."""
    for b in range(0, len(norms), 7):
        alone = _factors(clipping, norms[b : b + 1], max_norm)[0]
        if not torch.allclose(alone, factors[b], rtol=1e-3, atol=0):
            raise _broken(
                clipping,
                f"gives a sample with the norms {norms[b].tolist()[:3]} the factors {factors[b].tolist()[:3]} among "
                f"{len(norms)} samples, and {alone.tolist()[:3]} alone",
                fix="compute the factors of row b from row b of the norms alone: no reduction over dimension 0",
            )


def _broken(clipping: ClippingFunction, what: str, *, fix: str) -> ArgumentError:
    return ArgumentError(f"the clipping function {type(clipping).__name__} {what}", why=WHY, fix=fix)
