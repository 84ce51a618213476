"""Clipping functions: from the norm of a sample's gradient to the factor that bounds what it contributes."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dpgraph.errors import ArgumentError

__all__ = ["CLIPPING_FUNCTIONS", "ClippingFunction", "find_clipping"]


@runtime_checkable
class ClippingFunction(Protocol):
    """A clipping function with its declared bound.

    Formal guarantee that an implementation owes: `norm * factor(norm, R) <= bound(R)` for every norm in [0, inf) and
    every R > 0, with factors that are finite and >= 0; and row b of the factors is a function of row b of the norms and
    of R alone: not of other rows or their number, nor of random numbers or a state. Norms that are not finite never
    matter: their samples have factor 0.

    The bound is tried on a grid of norms when the mechanism is defined (`clipping_contract.py`); that rows are kept
    apart is proved when the function is traced. Either is an `ArgumentError`.
    """

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        """Clip factors, of the shape of `norm` ([B], or [B, K] with one column a group), all >= 0 and finite."""

    def bound(self, max_norm: float) -> float:
        """The largest norm of a clipped gradient."""


class AutoS:
    """R / (n + 0.01): automatic clipping with a stability constant (Bu et al. 2023, arXiv:2206.07136, section 4).

    norm 0: factor R / 0.01, contribution 0.
    """

    stability = 0.01

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return max_norm / (norm + self.stability)

    def bound(self, max_norm: float) -> float:
        return max_norm


class AutoV:
    """R / n: every sample contributes norm R (Bu et al. 2023, arXiv:2206.07136, section 3).

    norm 0: factor 0. So is that of a group whose norm is rounding noise beside the sample's largest group: some
    gradients are zero in exact arithmetic (that of a key's bias under softmax), and 1 / n would blow up the noise to
    norm R, in a direction that the rounding of a whole batch decides. Where all trained parameters together have no
    gradient, or where the noise is that of half precision, it cannot be told apart: there AUTO-S is the safer choice,
    whose stability constant keeps rounding as small as it is.
    """

    # In units of the dtype's rounding error; sums of many terms gather some.
    noise = 16

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        # n below the smallest normal number would give an infinite factor
        info = torch.finfo(norm.dtype)
        threshold: Tensor | float = info.tiny * max(1.0, max_norm)
        if norm.ndim > 1:
            largest = torch.where(torch.isfinite(norm), norm, 0).amax(-1, keepdim=True)
            threshold = (self.noise * info.eps * largest).clamp_min(threshold)
        return torch.where(norm > threshold, max_norm / norm.clamp_min(info.tiny), 0)

    def bound(self, max_norm: float) -> float:
        return max_norm


class Abadi:
    """min(1, R / n) (Abadi et al. 2016, arXiv:1607.00133).

    norm 0: factor 1.
    """

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return (max_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1)

    def bound(self, max_norm: float) -> float:
        return max_norm


CLIPPING_FUNCTIONS: dict[str, ClippingFunction] = {"auto-s": AutoS(), "auto-v": AutoV(), "abadi": Abadi()}


def find_clipping(clipping: str | ClippingFunction) -> ClippingFunction:
    """The clipping function of a name, or the object itself.

    Raises:
        ArgumentError: the name is unknown, or the object has no `factor` and `bound`.
    """
    if isinstance(clipping, str) and clipping in CLIPPING_FUNCTIONS:
        return CLIPPING_FUNCTIONS[clipping]
    if not isinstance(clipping, str) and isinstance(clipping, ClippingFunction):
        return clipping
    raise ArgumentError(
        f"clipping is {clipping!r}",
        why="the clipping function is what bounds a sample's contribution",
        fix=f"choose one of {', '.join(map(repr, CLIPPING_FUNCTIONS))}, or give an object with "
        "`factor(norm, max_norm)` and `bound(max_norm)`",
    )
