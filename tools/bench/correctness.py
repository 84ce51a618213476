"""What a variant's gradients have to be: nothing is timed that is not close to the loop over the samples.

The reference is that of the tests: float64, one backward a sample, on the very batch that is timed. The norms' median
is taken for R, so that the clipping changes one half of the samples and leaves the other.
"""

import copy
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.oracle import PerSampleGradients, per_sample_gradients
from tests.oracle.comparison import relative_errors
from tools.bench.models import Batch, Workload
from tools.bench.variants import Mode, trained_names

__all__ = ["TOLERANCES", "Reference", "error_of", "find_references"]

NO_BOUND = float("inf")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a gradient may be off.

    Attributes:
        error: the largest relative error of a parameter's gradient that passes.
        noise: a parameter whose gradient is less than this share of the whole is measured against the whole: in low
            precision a small difference of large numbers can be no closer.
        of_ordinary: an error passes too that is at most this many times that of ordinary training in the same dtype.
    """

    error: float
    noise: float
    of_ordinary: float = 0.0


TOLERANCES = {
    torch.float64: Tolerance(1e-8, 1e-8),
    torch.float32: Tolerance(1e-3, 1e-2, of_ordinary=2.0),
    torch.bfloat16: Tolerance(8 * torch.finfo(torch.bfloat16).eps, 1.0, of_ordinary=2.0),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """What a mode's gradients have to be.

    Attributes:
        max_grad_norm: R.
        clipped: the sum of the clipped per-sample gradients, by parameter.
        plain: their sum as they are.
    """

    max_grad_norm: float
    clipped: Mapping[str, Tensor]
    plain: Mapping[str, Tensor]


def find_references(model: nn.Module, workload: Workload, batch: Batch, modes: Sequence[Mode]) -> dict[Mode, Reference]:
    """The reference of each of the modes that train anything.

    The loop goes over the samples twice, for R and for the sums, so that one sample's gradients are held at once.
    """
    groups = {mode: {"all": names} for mode in modes if (names := trained_names(model, mode))}
    norms: dict[Mode, list[float]] = {mode: [] for mode in groups}
    for sample in _samples(model, workload, batch):
        for mode, group in groups.items():
            norms[mode].append(sample.norms(group).item())
    bounds = {mode: statistics.median(found) for mode, found in norms.items()}
    clipped: dict[Mode, dict[str, Tensor]] = {mode: {} for mode in groups}
    plain: dict[Mode, dict[str, Tensor]] = {mode: {} for mode in groups}
    for sample in _samples(model, workload, batch):
        for mode, group in groups.items():
            _add(clipped[mode], sample.clipped_sum(group, "abadi", bounds[mode]))
            _add(plain[mode], sample.clipped_sum(group, "abadi", NO_BOUND))
    return {mode: Reference(bounds[mode], clipped[mode], plain[mode]) for mode in groups}


def error_of(model: nn.Module, expected: Mapping[str, Tensor], dtype: torch.dtype) -> float:
    """The largest relative error of the gradients that a step left; no gradient counts as zero, NaN as infinite."""
    named = dict(model.named_parameters())
    found = {name: torch.zeros(()) if (g := named[name].grad) is None else g.detach().cpu() for name in expected}
    errors = relative_errors(found, expected, TOLERANCES[dtype].noise).values()
    return max(error if math.isfinite(error) else math.inf for error in errors)


def _samples(model: nn.Module, workload: Workload, batch: Batch) -> Iterator[PerSampleGradients]:
    """Each sample's gradients, on the CPU."""
    here = copy.deepcopy(model).cpu()
    wide = batch.to(torch.device("cpu"), torch.float64)
    for b in range(len(wide.inputs)):
        alone = wide.sample(b)

        def loss_of(twin: nn.Module, _: int, alone: Batch = alone) -> Tensor:
            return workload.loss(twin(alone.inputs), alone.targets).sum()

        yield per_sample_gradients(here, loss_of, 1)


def _add(total: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, g in more.items():
        total[name] = total[name] + g if name in total else g
