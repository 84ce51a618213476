"""Time, memory and the largest batch of a step."""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from dpgraph.memory.measure import measure_peak
from tools.bench.models import Batch
from tools.bench.variants import Trainer

__all__ = ["WARM_UP_ROUNDS", "MemoryLine", "keep_heap", "peak_bytes", "synchronise", "time_in_turns"]

WARM_UP_ROUNDS = 2
# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """Peak memory as a line in the batch size, through two measured points.

    Attributes:
        fixed: bytes at a batch of zero.
        per_sample: bytes that each sample adds.
    """

    fixed: float
    per_sample: float

    @classmethod
    def through(cls, few: int, peak_of_few: int, many: int, peak_of_many: int) -> "MemoryLine":
        """The line through the peaks at two batch sizes."""
        per_sample = (peak_of_many - peak_of_few) / (many - few)
        return cls(peak_of_few - per_sample * few, per_sample)

    def largest_batch(self, limit: int) -> int | None:
        """The largest batch whose peak is at most `limit` bytes; None if samples cost no memory."""
        return max(0, int((limit - self.fixed) // self.per_sample)) if self.per_sample > 0 else None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_heap() -> None:
    """Have glibc keep the memory that is freed in this process, rather than give it back and have it zeroed again.

    When it gives back depends on all that ran before: the same step of the same model had 0 page faults or 28,000, and
    took up to 8% longer.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, 2**31 - 1)


def time_in_turns(
    steps: Mapping[str, Callable[[], None]], rounds: int, steps_of_a_turn: int, device: torch.device
) -> dict[str, tuple[float, ...]]:
    """Seconds of a step, by name and round.

    In each round everyone takes a turn, in an order that shifts from round to round, so that a drift of the machine's
    speed meets all alike and a ratio can be taken within each round. A turn begins with a step that is not timed: in
    training, a step follows one of the same model, and finds in the caches what that left. The first `WARM_UP_ROUNDS`
    rounds do not count.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP_ROUNDS + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            steps[name]()
            synchronise(device)
            start = time.perf_counter()
            for _ in range(steps_of_a_turn):
                steps[name]()
            synchronise(device)
            if turn >= WARM_UP_ROUNDS:
                seconds[name].append((time.perf_counter() - start) / steps_of_a_turn)
    return {name: tuple(found) for name, found in seconds.items()}


def peak_bytes(trainer: Trainer, batch: Batch, device: torch.device) -> int:
    """Bytes that tensors made within a step hold at once, at most: gradients and activations, not the parameters.

    They count from the start of the step, after what the last step left was dropped. It is taken of a second step, when
    all is compiled.
    """
    trainer.step(batch)
    trainer.clear()
    return measure_peak(lambda: trainer.step(batch), device)
