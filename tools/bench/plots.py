"""The record as pictures: throughput, peak memory, largest batch. Needs matplotlib (`pip install '.[bench]'`)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools.bench.record import Record, Result, Status, WorkloadRecord

try:
    from matplotlib.figure import Figure
except ImportError:  # the record and the tables do without
    Figure = None

__all__ = ["can_plot", "draw", "draw_lines"]

Measure = Callable[[Result, WorkloadRecord], float | None]


def _throughput(result: Result, workload: WorkloadRecord) -> float | None:
    return workload.sizes.batch / result.quartiles[1]


def _peak(result: Result, _: WorkloadRecord) -> float | None:
    return None if result.peak_bytes is None else result.peak_bytes / 2**20


def _largest_batch(result: Result, _: WorkloadRecord) -> float | None:
    return result.largest_batch


FIGURES: dict[str, tuple[str, Measure]] = {
    "throughput": ("samples a second", _throughput),
    "peak_memory": ("peak of a step, MiB", _peak),
    "largest_batch": ("largest batch within the limit", _largest_batch),
}


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return Figure is not None


def draw(record: Record, folder: Path) -> list[Path]:
    """Write a PNG for each measure that the record has, and return their paths."""
    written = []
    for name, (label, measure) in FIGURES.items():
        bars = _bars(record, measure)
        if bars:
            path = folder / f"{name}.png"
            _draw_bars(bars, label, record, path)
            written.append(path)
    return written


def draw_lines(
    places: Sequence[float], series: Mapping[str, Sequence[float]], labels: tuple[str, str], path: Path
) -> None:
    """A line for each series over the same places, both axes from zero, as a PNG."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for name, values in series.items():
        panel.plot(places, values, marker="o", label=name)
    panel.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, None), ylim=(0, None))
    panel.legend()
    figure.savefig(path, dpi=120)


def _bars(record: Record, measure: Measure) -> dict[str, dict[str, float]]:
    """By model, by variant."""
    bars: dict[str, dict[str, float]] = {}
    for workload in record.workloads:
        for result in workload.results:
            value = measure(result, workload) if result.status is Status.timed else None
            if value is not None:
                bars.setdefault(workload.name, {})[result.variant] = value
    return bars


def _draw_bars(bars: dict[str, dict[str, float]], label: str, record: Record, path: Path) -> None:
    """A panel for each model, a bar for each variant; colours tell the modes apart."""
    height = 1.0 + 0.3 * max(len(values) for values in bars.values())
    figure = Figure(figsize=(7, height * len(bars)), layout="constrained")
    panels = figure.subplots(len(bars), 1, squeeze=False)[:, 0]
    for panel, (model, values) in zip(panels, bars.items(), strict=True):
        names = list(values)[::-1]
        colours = ["tab:blue" if name.endswith("-full") else "tab:orange" for name in names]
        panel.bar_label(panel.barh(names, [values[name] for name in names], color=colours), fmt="%.3g", padding=2)
        panel.set_title(model)
        panel.margins(x=0.12)
    panels[-1].set_xlabel(f"{label} ({record.environment.device}, {record.environment.dtype})")
    figure.savefig(path, dpi=120)
