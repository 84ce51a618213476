"""Timelines as tables and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dpgraph.memory.alternatives import Alternatives
from dpgraph.memory.timeline import Moment, Timeline
from dpgraph.report.text import as_text, readable

__all__ = ["AlternativesReport", "Measured", "show_timeline", "timeline_as_dict"]

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 80
MODULES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes made within a step that are live at its peak.

    Attributes:
        predicted: from the graphs.
        measured: of a step that ran; on CPU the profiler's events of allocation, on CUDA the allocator's count.
    """

    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """predicted / measured."""
        return self.predicted / self.measured if self.measured else float("inf")

    def __str__(self) -> str:
        shown = f"predicted {readable(self.predicted)}, measured {readable(self.measured)}"
        return f"{shown} (predicted / measured {self.ratio:.2f})"


@dataclass(frozen=True, slots=True)
class AlternativesReport:
    """The predictions for several ways to train one model."""

    found: Alternatives

    @property
    def timelines(self) -> Mapping[str, Timeline]:
        """By the name of the way to train."""
        return self.found.timelines

    @property
    def refused(self) -> Mapping[str, str]:
        """Why the model does not allow the others."""
        return self.found.refused

    def to_json(self) -> str:
        """A JSON object: timelines by the way to train, sizes in bytes, and why others are missing."""
        made = {name: timeline_as_dict(timeline) for name, timeline in self.timelines.items()}
        return json.dumps({"timelines": made, "refused": dict(self.refused)}, indent=2)

    def __rich__(self) -> Table:
        first = next(iter(self.timelines.values()))
        table = Table(title=f"peak of a step of {first.batch} samples, by the way to train", title_justify="left")
        table.add_column("")
        for name in ("peak", "of which held or saved", "with parameters and Adam", "batch in 16 GiB"):
            table.add_column(name, justify="right")
        for name, timeline in self.timelines.items():
            peak = timeline.at_peak()
            kept = sum(peak.by_kind.get(kind, 0) for kind in ("saved activation", "held for the weighted sum"))
            batch = timeline.largest_batch(16 * 2**30, optimizer_moments=2)
            table.add_row(
                name, readable(peak.total), readable(kept), readable(timeline.total(optimizer_moments=2)), f"{batch:,}"
            )
        for name, reason in self.refused.items():
            table.add_row(name, "-", "-", "-", reason)
        return table

    def __str__(self) -> str:
        return as_text(self)


def timeline_as_dict(timeline: Timeline) -> dict[str, Any]:
    """Bytes over the kernels, and what is live at the peak, at the captured batch size."""
    moment = timeline.at_peak()
    return {
        "batch": timeline.batch,
        "parameters": timeline.parameters,
        "trained": timeline.trained,
        "peak": moment.total,
        "peak_step": moment.step,
        "peak_kernel": moment.kernel,
        "peak_by_kind": dict(moment.by_kind),
        "peak_by_module": dict(moment.by_module),
        "forward_steps": timeline.forward_steps,
        "live": list(timeline.live()),
    }


def show_timeline(timeline: Timeline) -> Group:
    """A line of bars for the course of the step, and what is live at its peak."""
    moment, live = timeline.at_peak(), timeline.live()
    table = Table(
        title=f"memory of a step of {timeline.batch} samples: {readable(moment.total)} at the peak, in "
        f"{moment.module or 'the model itself'}, above {readable(timeline.parameters)} of parameters",
        title_justify="left",
    )
    for name in ("kind", "module"):
        table.add_column(name)
        table.add_column("at the peak", justify="right")
    kinds, modules = list(moment.by_kind.items()), list(_largest(moment).items())
    for i in range(max(len(kinds), len(modules))):
        kind, module = (cells[i] if i < len(cells) else None for cells in (kinds, modules))
        table.add_row(*_cells(kind), *_cells(module))
    split = round(WIDTH * timeline.forward_steps / len(live))
    bars = _bars(live)
    return Group(table, Text(f"forward  {bars[:split]}\nbackward {bars[split:]}"))


def _cells(entry: tuple[str, int] | None) -> tuple[str, str]:
    return (entry[0], readable(entry[1])) if entry else ("", "")


def _largest(moment: Moment) -> Mapping[str, int]:
    """The modules that hold most, and the rest together."""
    entries = [(name or "(the model itself)", size) for name, size in moment.by_module.items()]
    rest = sum(size for _, size in entries[MODULES_SHOWN:])
    return dict(entries[:MODULES_SHOWN]) | ({"others": rest} if rest else {})


def _bars(live: tuple[int, ...]) -> str:
    """`WIDTH` bars, each of the most that is live within its share of the kernels."""
    most, edges = max(live) or 1, [i * len(live) // WIDTH for i in range(WIDTH + 1)]
    parts = [live[start : max(stop, start + 1)] for start, stop in pairwise(edges)]
    return "".join(BARS[(len(BARS) - 1) * max(part) // most] for part in parts)
