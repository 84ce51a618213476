"""Clipping functions: from the norm of a sample's gradient to the factor that bounds what it contributes."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dpgraph.checks import require_positive
from dpgraph.errors import ArgumentError

__all__ = ["CLIPPING_FUNCTIONS", "AutoS", "ClippingFunction", "find_clipping"]


@runtime_checkable
class ClippingFunction(Protocol):
    """A clipping function with its declared bound.

    Formal guarantee that an implementation owes: `norm * factor(norm, R) <= bound(R)` for every norm in [0, inf) and
    every R > 0, with factors that are finite and >= 0; and row b of the factors is a function of row b of the norms and
    of R alone: not of other rows or their number, nor of random numbers or a state. Norms that are not finite never
    matter: their samples have factor 0. R is an input of the compiled graph and may change from step to step: `factor`
    gets it as a tensor, and computes with both as with tensors.

    The bound is tried on a grid of norms when the mechanism is defined (`clipping_contract.py`); that rows are kept
    apart is proved when the function is traced. Either is an `ArgumentError`.
    """

    def factor(self, norm: Tensor, max_norm: Tensor) -> Tensor:
        """Clip factors [B, K], with one column a group, of norms and R of the same shape; all >= 0 and finite."""

    def bound(self, max_norm: float) -> float:
        """The largest norm of a clipped gradient."""


@dataclass(frozen=True, slots=True)
class AutoS:
    """R / (n + gamma): automatic clipping with a stability constant (Bu et al. 2023, arXiv:2206.07136, section 4).

    norm 0: factor R / gamma, contribution 0. The smaller gamma, the more samples of small gradient weigh.

    Attributes:
        gamma: finite and above 0.

    Raises:
        ArgumentError: gamma is something else.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        require_positive("gamma", self.gamma, why="it keeps the factors of small gradients finite")

    def factor(self, norm: Tensor, max_norm: Tensor) -> Tensor:
        return max_norm / (norm + self.gamma)

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

    def factor(self, norm: Tensor, max_norm: Tensor) -> Tensor:
        # n below the smallest normal number would give an infinite factor
        info = torch.finfo(norm.dtype)
        largest = torch.where(torch.isfinite(norm), norm, 0).amax(-1, keepdim=True)
        threshold = torch.maximum(self.noise * info.eps * largest, (info.tiny * max_norm).clamp_min(info.tiny))
        return torch.where(norm > threshold, max_norm / norm.clamp_min(info.tiny), 0)

    def bound(self, max_norm: float) -> float:
        return max_norm


class Abadi:
    """min(1, R / n) (Abadi et al. 2016, arXiv:1607.00133).

    norm 0: factor 1.
    """

    def factor(self, norm: Tensor, max_norm: Tensor) -> Tensor:
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
