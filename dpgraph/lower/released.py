"""What a backward says about the samples' norms."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dpgraph.errors import ArgumentError
from dpgraph.gradients.certified import SHARE

__all__ = ["Released", "SaysNorms"]


@dataclass(frozen=True, slots=True)
class Released:
    """Norms of the samples of one call, once its backward has come.

    Attributes:
        probe: the call's probe [B, 2, K], whose gradient has them.
        num_samples: how many of its rows are samples.
    """

    probe: Tensor
    num_samples: int

    @property
    def norms(self) -> Tensor:
        """Those that clip, [B], or [B, K] for K groups."""
        return self._channel(0)

    @property
    def errors(self) -> Tensor:
        """How far the squares of the norms may be off by rounding, as shares of them, in the same shape."""
        return self._channel(1)

    def _channel(self, i: int) -> Tensor:
        if self.probe.grad is None:
            raise _no_norms()
        columns = self.probe.grad[: self.num_samples, i]
        return columns[:, 0] if columns.shape[1] == 1 else columns


class SaysNorms:
    """A module that says what the last backward found."""

    @property
    @abstractmethod
    def _released(self) -> Released | None:
        """Of the newest call, if there was one."""

    @property
    def grad_norms(self) -> Tensor:
        """Norms [B] (or [B, K] for K groups) of the samples' gradients before clipping, of the last backward.

        They are those that clip. A true norm exceeds one by a share of 2^-10 of it at most; see `num_cancelled` for
        where it may be far below.

        Raises:
            ArgumentError: there was no backward yet.
        """
        return self._last().norms

    @property
    def norm_errors(self) -> Tensor:
        """How far the squares of the norms may be off by rounding, as shares of them, [B] or [B, K]."""
        return self._last().errors

    @property
    def num_nonfinite(self) -> int:
        """How many samples of the last backward had factor 0 in some group, since it or the norm was not finite."""
        return _num_samples_with(~torch.isfinite(self.grad_norms))

    @property
    def num_cancelled(self) -> int:
        """How many samples of the last backward were clipped by an upper bound of their norm in some group.

        Their gradients are sums of terms that cancel so far that rounding has a share in what is left. They add less
        than they could; `CompileOptions(norm_strategy="materialise")` computes their norms from what is added.
        """
        return _num_samples_with(torch.isfinite(self.grad_norms) & (self.norm_errors > 2 * SHARE))

    def _last(self) -> Released:
        if self._released is None:
            raise _no_norms()
        return self._released


def _num_samples_with(flags: Tensor) -> int:
    return int((flags if flags.ndim == 1 else flags.any(1)).sum())


def _no_norms() -> ArgumentError:
    return ArgumentError(
        "there are no norms yet",
        why="norms are computed by the backward",
        fix="call the module in grad mode and loss.backward() first",
    )
