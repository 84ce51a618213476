"""Many small cases as one graph, since a compilation by Inductor takes seconds whatever it compiles.

Each case is a group of the grouping, so that it is clipped by its own norms and to its own bound, exactly as if it were
alone, and is compared with a loop over its own samples.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, DPModule, dp_compile
from dpgraph.mechanism import is_bias
from tests.oracle import PerSampleGradients, group_names, per_sample_gradients
from tests.programs.exact import INDUCTOR, LossOf, compare, in_plain_layout, squares

__all__ = ["SmallCase", "check_together", "measure_together"]

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class SmallCase:
    """A model and what it is called with.

    Attributes:
        name: what a failure calls it.
        model: in float64.
        calls: the inputs [B, ...] of one call after the other; cases that go together have the same B in each call.
        mode: as for `dp_compile`.
        grouping: of its own parameters, by name.
        loss: per-sample losses [B] of its output.
    """

    name: str
    model: nn.Module
    calls: tuple[Inputs, ...]
    mode: str = "full"
    grouping: str = "flat"
    loss: LossOf = squares

    @property
    def num_samples(self) -> tuple[int, ...]:
        """B of each call."""
        return tuple(len(inputs[0]) for inputs in self.calls)

    def groups(self) -> list[tuple[str, ...]]:
        """Names of the trained parameters, by group."""
        trained = [name for name, p in self.model.named_parameters() if p.requires_grad]
        return list(group_names(trained, self.grouping).values())

    def train_what_the_mode_says(self) -> None:
        """The compiled whole has one mode, "trainable"."""
        for name, p in self.model.named_parameters():
            p.requires_grad_(self.mode == "full" or (p.requires_grad if self.mode == "trainable" else is_bias(name)))


class _SideBySide(nn.Module):
    """Models that have nothing to do with one another."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(models)

    def forward(self, inputs: tuple[Inputs, ...]) -> tuple[Tensor, ...]:
        return tuple(model(*own) for model, own in zip(self.each, inputs, strict=True))


def check_together(
    cases: Sequence[SmallCase], *, clipping: str = "abadi", bound: float = 2.0, options: CompileOptions = INDUCTOR
) -> None:
    """Pass if every case is exact.

    Raises:
        AssertionError: with the name of each case that is not, and what is wrong with it.
    """
    found = measure_together(cases, clipping=clipping, bound=bound, options=options)
    wrong = {case.name: e for case, e in zip(cases, found, strict=True) if isinstance(e, Exception)}
    assert not wrong, "\n".join(f"{name}: {type(e).__name__}: {e}" for name, e in wrong.items())


def measure_together(
    cases: Sequence[SmallCase], *, clipping: str, bound: float = 1.0, options: CompileOptions = INDUCTOR
) -> list[float | Exception]:
    """For each case the largest relative error of a gradient, or what is wrong with it.

    Args:
        cases: with the same numbers of samples.
        clipping: of all.
        bound: R / sqrt(K) of each group.
        options: how to compile.

    Raises:
        Exception: what came of the whole, if nothing is wrong with either half.
    """
    if not cases:
        return []
    try:
        return _measure(cases, clipping, bound, options)
    except Exception as error:  # noqa: BLE001  whatever it is, it is said of which case it is
        raised = error
    if len(cases) == 1:
        return [raised]
    half = len(cases) // 2
    found = [
        e
        for several in (cases[:half], cases[half:])
        for e in measure_together(several, clipping=clipping, bound=bound, options=options)
    ]
    if not any(isinstance(e, Exception) for e in found):
        raise raised
    return found


def _measure(
    cases: Sequence[SmallCase], clipping: str, bound: float, options: CompileOptions
) -> list[float | Exception]:
    torch._dynamo.reset()
    assert len({case.num_samples for case in cases}) == 1, "all have the same numbers of samples"
    for case in cases:
        case.train_what_the_mode_says()
    groups = {f"{i}/{k}": names for i, c in enumerate(cases) for k, names in enumerate(_names(i, c))}
    module = dp_compile(
        _SideBySide([case.model for case in cases]),
        "trainable",
        clipping=clipping,
        grouping=groups,
        max_grad_norm=bound * len(groups) ** 0.5,
        options=options,
    )
    found: list[list[float | Exception]] = [[] for _ in cases]
    for call in range(len(cases[0].calls)):
        norms = _train(module, cases, call)
        for case, own, errors in zip(cases, norms, found, strict=True):
            errors.append(_error(case, call, own, clipping, bound))
    return [_worst(errors) for errors in found]


def _names(i: int, case: SmallCase) -> list[list[str]]:
    """Names that the parameters of case i have in the whole, by group."""
    return [[f"each.{i}.{name}" for name in members] for members in case.groups()]


def _train(module: DPModule, cases: Sequence[SmallCase], call: int) -> tuple[Tensor, ...]:
    """One step; the norms [B, K] of each case."""
    for p in module.parameters():
        p.grad = None
    outputs = module(tuple(case.calls[call] for case in cases))
    sum(case.loss(y).sum() for case, y in zip(cases, outputs, strict=True)).backward()
    num_groups = [len(case.groups()) for case in cases]
    return module.grad_norms.reshape(cases[0].num_samples[call], sum(num_groups)).split(num_groups, 1)


def _loop(case: SmallCase, call: int) -> PerSampleGradients:
    def loss_of(oracle: nn.Module, b: int) -> Tensor:
        return case.loss(oracle(*(x[b : b + 1].contiguous() for x in case.calls[call]))).sum()

    return per_sample_gradients(in_plain_layout(copy.deepcopy(case.model)), loss_of, case.num_samples[call])


def _error(case: SmallCase, call: int, norms: Tensor, clipping: str, bound: float) -> float | Exception:
    samples, max_grad_norm = _loop(case, call), bound * norms.shape[1] ** 0.5
    try:
        return compare(case.model, norms, samples, case.grouping, clipping, max_grad_norm)
    except AssertionError as error:
        return error


def _worst(errors: Sequence[float | Exception]) -> float | Exception:
    return max(errors, key=lambda e: math.inf if isinstance(e, Exception) else e)
