"""Run the variants of one model: check each one's gradients, then time those that are right, then weigh them."""

import copy
import math
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from tools.bench.correctness import TOLERANCES, Reference, error_of, find_references
from tools.bench.measure import MemoryLine, keep_heap, peak_bytes, synchronise, time_in_turns
from tools.bench.models import Batch, Workload
from tools.bench.peers import PEER_KINDS, why_missing
from tools.bench.record import Result, Status, WorkloadRecord
from tools.bench.variants import MODES, OWN_KINDS, Compiled, Eager, Kind, Mode, Task, Trainer, train_only

__all__ = ["KINDS", "VARIANTS", "Settings", "parse_variant", "prepare_process", "run_workload"]

KINDS = {kind.name: kind for kind in (*OWN_KINDS, *PEER_KINDS)}
CPU = torch.device("cpu")
VARIANTS = tuple(f"{kind}-{mode}" for mode in MODES for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: that count.
        steps_of_a_turn: steps that a variant takes at a time.
        limit_bytes: memory that the largest batch has to fit into; 0 to leave it out.
        device: where.
        dtype: of parameters and inputs.
        threads: of torch's kernels on the CPU.
        memory: whether to measure the peak.
    """

    rounds: int = 15
    steps_of_a_turn: int = 1
    limit_bytes: int = 0
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    threads: int = 1
    memory: bool = True


@dataclass(frozen=True, slots=True)
class Ready:
    """A variant whose gradients are right, with its own copy of the batch.

    What a library notes on a tensor (dpgraph: that its size varies) must not reach how another one compiles.
    """

    trainer: Trainer
    batch: Batch
    result: Result


def parse_variant(name: str) -> tuple[Kind, Mode]:
    """Kind and mode of a variant.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name}; choose from {', '.join(VARIANTS)}")
    kind, _, mode = name.rpartition("-")
    return KINDS[kind], cast(Mode, mode)


def prepare_process() -> None:
    """In a process that measures, leave out libraries' warnings and page faults that no variant is to blame for."""
    keep_heap()
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def run_workload(workload: Workload, variants: Sequence[str], settings: Settings) -> WorkloadRecord:
    """Measure the variants of one model; all of them train copies of it, on the same batch."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    model = workload.make(workload.sizes).to(settings.device, settings.dtype)
    batch = workload.draw(workload.sizes, workload.sizes.batch).to(settings.device, settings.dtype)
    chosen = {name: parse_variant(name) for name in variants}
    references = find_references(model, workload, batch, sorted({mode for _, mode in chosen.values()}))
    prepared = {name: _prepare(name, *chosen[name], model, workload, batch, references, settings) for name in variants}
    ready = {name: found for name, found in prepared.items() if isinstance(found, Ready)}
    measured = _measure(ready, workload, settings)
    results = tuple(measured[name] if isinstance(found, Ready) else found for name, found in prepared.items())
    return WorkloadRecord(workload.name, workload.sizes, sum(p.numel() for p in model.parameters()), results)


def _prepare(
    name: str,
    kind: Kind,
    mode: Mode,
    model: nn.Module,
    workload: Workload,
    batch: Batch,
    references: dict[Mode, Reference],
    settings: Settings,
) -> Ready | Result:
    """Take the first step, and hold its gradients against the reference."""
    result = Result(name, Status.timed, kind.ran_as)
    if reason := why_missing(kind):
        return replace(result, status=Status.missing, reason=reason)
    if mode not in references:
        return replace(result, status=Status.untrained, reason=f"the model has nothing that {mode} trains")
    own, batch, reference = copy.deepcopy(model), batch.copy(), references[mode]
    train_only(own, mode)
    try:
        start = time.perf_counter()
        trainer = kind.make(Task(own, workload.loss, mode, reference.max_grad_norm))
        trainer.step(batch)
        synchronise(settings.device)
        first = time.perf_counter() - start
    except Exception as error:  # noqa: BLE001  one variant that fails is a result, and no reason to leave the others
        return replace(result, status=Status.failed, reason=_first_line(error))
    error_found = error_of(own, reference.clipped if kind.private else reference.plain, settings.dtype)
    result = replace(result, error=error_found if math.isfinite(error_found) else None, first_seconds=first)
    tolerance = TOLERANCES[settings.dtype]
    if not (
        error_found <= tolerance.error
        or error_found <= tolerance.of_ordinary * _error_of_ordinary(model, workload, batch, mode, reference, settings)
    ):
        reason = f"relative error {error_found:.1e} against a loop over the samples"
        return replace(result, status=Status.wrong, reason=reason)
    return Ready(trainer, batch, result)


def _error_of_ordinary(
    model: nn.Module, workload: Workload, batch: Batch, mode: Mode, reference: Reference, settings: Settings
) -> float:
    """What ordinary training in that dtype is off by, op by op or compiled, whichever is off more."""
    errors = []
    for kind in (Eager, Compiled):
        own = copy.deepcopy(model)
        train_only(own, mode)
        kind(Task(own, workload.loss, mode, reference.max_grad_norm)).step(batch.copy())
        errors.append(error_of(own, reference.plain, settings.dtype))
    return max(errors)


def _step(ready: Ready) -> Callable[[], None]:
    return lambda: ready.trainer.step(ready.batch)


def _measure(ready: dict[str, Ready], workload: Workload, settings: Settings) -> dict[str, Result]:
    if not ready:
        return {}
    steps = {name: _step(found) for name, found in ready.items()}
    seconds = time_in_turns(steps, settings.rounds, settings.steps_of_a_turn, settings.device)
    measured = {}
    for name, found in ready.items():
        result = replace(found.result, seconds=seconds[name])
        if settings.memory:
            peak = peak_bytes(found.trainer, found.batch, settings.device)
            result = replace(result, peak_bytes=peak)
            if settings.limit_bytes:
                largest = _largest_batch(found.trainer, workload, peak, settings)
                result = replace(result, largest_batch=largest)
        measured[name] = result
        found.trainer.clear()
    return measured


def _largest_batch(trainer: Trainer, workload: Workload, peak: int, settings: Settings) -> int | None:
    """By the peaks at the batch that is timed and at one of half the size."""
    size = workload.sizes.batch
    few = max(1, size // 2)
    smaller = workload.draw(workload.sizes, few).to(settings.device, settings.dtype)
    peak_of_few = peak_bytes(trainer, smaller, settings.device)
    return MemoryLine.through(few, peak_of_few, size, peak).largest_batch(settings.limit_bytes)


def _first_line(error: Exception) -> str:
    text = "".join(traceback.format_exception_only(error)).strip()
    return next(line for line in text.splitlines() if line.strip())[:300]
