"""Clipped per-sample gradients by definition: one backward a sample in float64, norm, clip, add."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Groups = Mapping[str, Sequence[str]]
"""Group name -> names of the parameters in it."""


def clip_factor(norm: float, clipping: str, bound: float) -> float:
    """The weight of a sample whose gradient has norm `norm`; 0 if that is not finite.

    auto-s: R / (n + 0.01), auto-v: R / n and 0 at 0 (Bu et al. 2023, arXiv:2206.07136);
    abadi: min(1, R / n) (Abadi et al. 2016, arXiv:1607.00133).
    """
    if not math.isfinite(norm):
        return 0.0
    match clipping:
        case "auto-s":
            return bound / (norm + 0.01)
        case "auto-v":
            return bound / norm if norm > 0 else 0.0
        case "abadi":
            return min(1.0, bound / norm) if norm > 0 else 1.0
    raise ValueError(clipping)


def group_names(names: Sequence[str], grouping: str) -> dict[str, tuple[str, ...]]:
    """The groups of "flat", "per-layer" (one for each module that owns a parameter) and "per-param"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = {"flat": "all", "per-layer": name.rpartition(".")[0], "per-param": name}[grouping]
        groups.setdefault(key, []).append(name)
    return {key: tuple(members) for key, members in groups.items()}


@dataclass(frozen=True)
class PerSampleGradients:
    """Gradients of each sample alone.

    Attributes:
        shapes: shape of every parameter, by name.
        samples: for each sample, the gradients in float64 by parameter name.
    """

    shapes: Mapping[str, torch.Size]
    samples: tuple[Mapping[str, Tensor], ...]

    def norms(self, groups: Groups) -> Tensor:
        """Norm of each sample's gradient in each group, [B, K] float64."""
        rows = [
            [math.sqrt(math.fsum(float(sample[n].square().sum()) for n in members)) for members in groups.values()]
            for sample in self.samples
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(self.samples), len(groups))

    def clipped_sum(self, groups: Groups, clipping: str, max_grad_norm: float) -> dict[str, Tensor]:
        """The sum over the samples of their clipped gradients; each of K groups is bounded by R / sqrt(K)."""
        total = {n: torch.zeros(self.shapes[n], dtype=torch.float64) for members in groups.values() for n in members}
        for sample, row in zip(self.samples, self._factors(groups, clipping, max_grad_norm), strict=True):
            for factor, members in zip(row, groups.values(), strict=True):
                for name in members:
                    if factor != 0:
                        total[name] += factor * sample[name]
        return total

    def whole_norms(self, groups: Groups, clipping: str, max_grad_norm: float) -> dict[str, float]:
        """For each parameter, what its group's factors would make of the samples' gradients in all groups, at most."""
        every = {"all": [name for members in groups.values() for name in members]}
        wholes = self.norms(every)[:, 0].tolist()
        factors = self._factors(groups, clipping, max_grad_norm)
        sums = [
            math.fsum(row[k] * whole for row, whole in zip(factors, wholes, strict=True) if row[k] != 0)
            for k in range(len(groups))
        ]
        return {name: total for total, members in zip(sums, groups.values(), strict=True) for name in members}

    def _factors(self, groups: Groups, clipping: str, max_grad_norm: float) -> list[list[float]]:
        bound = max_grad_norm / math.sqrt(len(groups))
        return [[clip_factor(norm, clipping, bound) for norm in row] for row in self.norms(groups).tolist()]


def per_sample_gradients(
    model: nn.Module, loss_of: Callable[[nn.Module, int], Tensor], num_samples: int
) -> PerSampleGradients:
    """One backward for each sample, through a float64 copy of the model.

    Args:
        model: left as it is. A parameter with several names goes by the first.
        loss_of: `loss_of(model, b)` is the loss of sample b alone, a scalar.
        num_samples: B.
    """
    twin = copy.deepcopy(model).double()
    parameters = {name: p.requires_grad_() for name, p in twin.named_parameters() if p.dtype.is_floating_point}
    samples = []
    for b in range(num_samples):
        found = torch.autograd.grad(loss_of(twin, b), list(parameters.values()), allow_unused=True)
        samples.append(
            {
                name: torch.zeros_like(p) if g is None else g.detach()
                for (name, p), g in zip(parameters.items(), found, strict=True)
            }
        )
    return PerSampleGradients({name: p.shape for name, p in parameters.items()}, tuple(samples))
