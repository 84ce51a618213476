"""The record of a run: what was measured, of what, on what."""

import json
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tools.bench.models import Sizes

__all__ = ["Environment", "Ratio", "Record", "Result", "Status", "WorkloadRecord", "ratio"]

LIBRARIES = ("transformers", "opacus", "fastDP")


class Status(str, Enum):
    """What became of a variant."""

    timed = "timed"
    wrong = "wrong gradient, not timed"
    failed = "failed"
    missing = "not importable"
    untrained = "trains nothing"


@dataclass(frozen=True, slots=True)
class Environment:
    """What a run ran on."""

    device: str
    dtype: str
    threads: int
    python: str
    versions: dict[str, str]
    commit: str
    date: str

    @classmethod
    def current(cls, device: torch.device, dtype: torch.dtype, threads: int) -> "Environment":
        """That of this process."""
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
            dtype=str(dtype).removeprefix("torch."),
            threads=threads,
            python=platform.python_version(),
            versions=_versions(),
            commit=_commit(),
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One variant of one model.

    Attributes:
        variant: kind and mode.
        status: whether it was timed.
        ran_as: how it was run.
        reason: why it was not timed.
        error: of its gradient against the loop over the samples, relative; None if it made none.
        first_seconds: the first step, compilation included.
        seconds: of a step, by round.
        peak_bytes: tensors that a step holds at once, at most, on top of what was there before; None if not measured.
        largest_batch: the largest batch within the memory limit, by a line through two measured peaks.
    """

    variant: str
    status: Status
    ran_as: str = ""
    reason: str = ""
    error: float | None = None
    first_seconds: float | None = None
    seconds: tuple[float, ...] = ()
    peak_bytes: int | None = None
    largest_batch: int | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the seconds of a step; the second is the median."""
        return quartiles(self.seconds)


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """One model, and how it was trained."""

    name: str
    sizes: Sizes
    num_parameters: int
    results: tuple[Result, ...]

    def timed(self, variant: str) -> Result | None:
        """A variant's result, if it was timed."""
        return next((r for r in self.results if r.variant == variant and r.status is Status.timed), None)


@dataclass(frozen=True, slots=True)
class Record:
    """A run of the command."""

    environment: Environment
    rounds: int
    steps_of_a_turn: int
    limit_bytes: int
    workloads: tuple[WorkloadRecord, ...]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record that was written."""
        data = json.loads(text)
        return cls(
            environment=Environment(**data.pop("environment")),
            workloads=tuple(_workload(found) for found in data.pop("workloads")),
            **data,
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """One variant in units of another: the median over the rounds of time / time in the same round, and its quartiles.

    Attributes:
        of_minima: ratio of the least times.
        memory: ratio of the peaks; None if they were not measured.
    """

    numerator: str
    denominator: str
    low: float
    median: float
    high: float
    of_minima: float
    memory: float | None


def ratio(numerator: Result, denominator: Result) -> Ratio:
    """Two variants that took turns within one run."""
    low, median, high = quartiles([a / b for a, b in zip(numerator.seconds, denominator.seconds, strict=True)])
    memory = numerator.peak_bytes / denominator.peak_bytes if numerator.peak_bytes and denominator.peak_bytes else None
    of_minima = min(numerator.seconds) / min(denominator.seconds)
    return Ratio(numerator.variant, denominator.variant, low, median, high, of_minima, memory)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The three quartiles; of one value, itself."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return low, middle, high


def _workload(data: dict[str, Any]) -> WorkloadRecord:
    results = tuple(
        Result(**{**found, "status": Status(found["status"]), "seconds": tuple(found["seconds"])})
        for found in data.pop("results")
    )
    return WorkloadRecord(sizes=Sizes(**data.pop("sizes")), results=results, **data)


def _cpu_name() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    """torch's says for what it was built, the others' are those of their packages."""
    return {"torch": str(torch.__version__)} | {name: found for name in LIBRARIES if (found := _version(name))}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit that is checked out, with a plus sign if files differ from it; empty outside a clone."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
