"""The record as tables on a terminal."""

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.table import Table

from tools.bench.record import Ratio, Record, Result, Status, WorkloadRecord, ratio
from tools.bench.variants import MODES, OWN_KINDS

__all__ = ["ratios", "show"]

NOTES = (
    "ratio: median over the rounds of time / time in the same round, with its quartiles; of minima: ratio of the least "
    "times; peak: tensors that a step holds at once on top of the parameters; first: the first step, compilation "
    "included; error: of the gradients against a loop over the samples in float64"
)


def ratios(workload: WorkloadRecord) -> Iterator[Ratio]:
    """dpgraph in units of ordinary training, and each other way to train privately in units of dpgraph."""
    pairs = [(f"dp-{mode}", f"{kind}-{mode}") for mode in MODES for kind in ("plain", "plain-any-size")]
    pairs += [("dp-bitfit", "plain-full"), ("plain-bitfit", "plain-full"), ("plain-full", "eager-full")]
    for mode in MODES:
        names = [r.variant for r in workload.results if r.variant.endswith(f"-{mode}")]
        known = {f"{kind.name}-{mode}" for kind in OWN_KINDS if kind.name == "dp" or not kind.private}
        pairs += [(name, f"dp-{mode}") for name in names if name not in known]
    for pair in pairs:
        numerator, denominator = map(workload.timed, pair)
        if numerator is not None and denominator is not None:
            yield ratio(numerator, denominator)


def show(record: Record, console: Console) -> None:
    """Print a table of times and one of ratios for each model."""
    env = record.environment
    versions = ", ".join(f"{name} {number}" for name, number in env.versions.items())
    console.print(f"{env.device}, {env.dtype}, {env.threads} threads, {versions}, commit {env.commit}, {env.date}")
    for workload in record.workloads:
        if any(r.status is Status.timed for r in workload.results):
            console.print(_times(workload))
        for reason, found in groupby((r for r in workload.results if r.status is not Status.timed), _why):
            console.print(f"not timed: {', '.join(r.variant for r in found)}: {reason}", markup=False)
        if any(ratios(workload)):
            console.print(_ratios(workload))
    console.print(NOTES)


def _times(workload: WorkloadRecord) -> Table:
    title = f"{workload.name}: {workload.sizes}, {workload.num_parameters:,} parameters"
    table = Table(title=title)
    table.add_column("variant", no_wrap=True)
    for column in ("median ms", "quartiles", "min ms", "samples/s", "peak MiB", "largest batch", "first s", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in workload.results:
        if result.status is Status.timed:
            table.add_row(result.variant, *_cells(result, workload.sizes.batch))
    return table


def _cells(result: Result, batch: int) -> Iterator[str]:
    low, median, high = (f"{1e3 * seconds:.1f}" for seconds in result.quartiles)
    yield from (median, f"{low} to {high}", f"{1e3 * min(result.seconds):.1f}")
    yield f"{batch / result.quartiles[1]:.1f}"
    yield f"{result.peak_bytes / 2**20:.0f}" if result.peak_bytes is not None else ""
    yield str(result.largest_batch) if result.largest_batch is not None else ""
    yield f"{result.first_seconds:.1f}" if result.first_seconds is not None else ""
    yield f"{result.error:.0e}" if result.error is not None else ""


def _ratios(workload: WorkloadRecord) -> Table:
    table = Table()
    table.add_column("ratio", no_wrap=True)
    for column in ("time", "quartiles", "of minima", "peak memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for found in ratios(workload):
        memory = f"{found.memory:.2f}" if found.memory is not None else ""
        name = f"{found.numerator} / {found.denominator}"
        spread = f"{found.low:.2f} to {found.high:.2f}"
        table.add_row(name, f"{found.median:.3f}", spread, f"{found.of_minima:.3f}", memory)
    return table


def _why(result: Result) -> str:
    return f"{result.status.value}: {result.reason}"
