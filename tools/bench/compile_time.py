"""Where the time of a compilation goes, and how it grows with depth: `python -m tools.bench.compile_time`.

    python -m tools.bench.compile_time                          4, 8, 16 and 32 layers, private and plain
    python -m tools.bench.compile_time --depths 4,8 --mode bitfit --repeats 3

What counts is the first step less the time of a later one. Every compilation runs in a process of its own, with all
of torch's caches off, after a small model was compiled in the same way there: imports and the start of the native
compiler do not count. Writes compile_time.json and, with matplotlib, compile_time.png.
"""

import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from enum import Enum
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import torch._inductor.config
import typer
from rich.console import Console
from rich.table import Table

from tools.bench.measure import synchronise
from tools.bench.models import WORKLOADS, Sizes, Workload
from tools.bench.plots import can_plot, draw_lines
from tools.bench.record import Environment
from tools.bench.run import KINDS, prepare_process
from tools.bench.stopwatch import CAPTURE, OURS, PHASES, Stopwatch
from tools.bench.variants import Mode, Task, Trainer, train_only

__all__ = ["Compilation", "CompileRecord", "Line", "compile_once", "measure"]

CompiledKind = Literal["plain", "plain-any-size", "dp"]
COMPILED_KINDS: tuple[CompiledKind, ...] = get_args(CompiledKind)
MAX_SHARE, MAX_RATIO = 0.15, 1.5
LATER_STEPS = 3


class Trained(str, Enum):
    """What is trained."""

    full = "full"
    bitfit = "bitfit"


@dataclass(frozen=True, slots=True)
class Compilation:
    """One compilation.

    Attributes:
        kind: "plain", "plain-any-size" or "dp".
        layers: depth of the model.
        total: seconds of the first step less those of a later one.
        phases: seconds by phase, which add up to the total.
    """

    kind: CompiledKind
    layers: int
    total: float
    phases: dict[str, float]

    @property
    def share(self) -> float:
        """Of the total, what dpgraph's analysis and passes take."""
        return sum(self.phases.get(phase, 0.0) for phase in OURS) / self.total


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds as a line in the number of layers, by least squares.

    Attributes:
        fixed: seconds at no layer.
        per_layer: seconds that each layer adds.
        deviation: the largest distance of a measured time from the line, as a share of that time.
    """

    fixed: float
    per_layer: float
    deviation: float

    @classmethod
    def fit(cls, layers: Sequence[int], seconds: Sequence[float]) -> "Line":
        """The line through times at two depths or more."""
        slope, intercept = np.polyfit(layers, seconds, 1)
        found = [abs(intercept + slope * x - y) / y for x, y in zip(layers, seconds, strict=True)]
        return cls(float(intercept), float(slope), float(max(found)))


@dataclass(frozen=True, slots=True)
class CompileRecord:
    """A run of the command."""

    environment: Environment
    model: str
    sizes: Sizes
    mode: Mode
    compilations: tuple[Compilation, ...]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CompileRecord":
        """The record that was written."""
        data = json.loads(text)
        return cls(
            environment=Environment(**data.pop("environment")),
            sizes=Sizes(**data.pop("sizes")),
            compilations=tuple(Compilation(**found) for found in data.pop("compilations")),
            **data,
        )

    def median(self, kind: CompiledKind, layers: int) -> Compilation:
        """The compilation with the median total among the repeats."""
        found = [c for c in self.compilations if (c.kind, c.layers) == (kind, layers)]
        middle = statistics.median_low([c.total for c in found])
        return next(c for c in found if c.total == middle)

    @property
    def depths(self) -> list[int]:
        """Depths that were measured, ascending."""
        return sorted({c.layers for c in self.compilations})

    def line(self, kind: CompiledKind) -> Line:
        """Growth of the medians with depth."""
        return Line.fit(self.depths, [self.median(kind, layers).total for layers in self.depths])


def measure(workload: Workload, kind: CompiledKind, mode: Mode, device: torch.device, threads: int) -> Compilation:
    """Compile in this process, after a model of one narrow layer."""
    torch.set_num_threads(threads)
    warm_up = workload.resized(layers=1, width=8 * workload.sizes.heads)
    with torch._inductor.config.patch(force_disable_caches=True):
        compile_once(warm_up, kind, mode, device)
        return compile_once(workload, kind, mode, device)


def compile_once(workload: Workload, kind: CompiledKind, mode: Mode, device: torch.device) -> Compilation:
    """Compile a model that is new to this process."""
    torch.manual_seed(0)
    model = workload.make(workload.sizes).to(device)
    train_only(model, mode)
    batch = workload.draw(workload.sizes, workload.sizes.batch).to(device, torch.float32)
    trainer: Trainer = KINDS[kind].make(Task(model, workload.loss, mode, 1.0))
    watch = Stopwatch()

    def seconds_of_a_step() -> float:
        start = time.perf_counter()
        trainer.step(batch)
        synchronise(device)
        return time.perf_counter() - start

    with watch.watching():
        first = seconds_of_a_step()
    total = first - min(seconds_of_a_step() for _ in range(LATER_STEPS))
    rest = total - sum(watch.seconds.values())
    return Compilation(kind, workload.sizes.layers, total, {CAPTURE: rest, **watch.seconds})


def show(record: CompileRecord, console: Console) -> None:
    """Print the phases of the private compilation by depth, and the totals against plain compilation."""
    env = record.environment
    console.print(f"{env.device}, torch {env.versions.get('torch', '')}, commit {env.commit}, {env.date}")
    table = Table(title=f"{record.model}, {record.mode}: seconds by phase of a private compilation (of a plain one)")
    table.add_column("phase", no_wrap=True)
    for layers in record.depths:
        table.add_column(f"{layers} layers", justify="right", no_wrap=True)
    pairs = [(record.median("dp", layers), record.median("plain", layers)) for layers in record.depths]
    any_size = [record.median("plain-any-size", layers).total for layers in record.depths]
    for phase in PHASES:
        table.add_row(phase, *(_cell(dp.phases.get(phase), plain.phases.get(phase)) for dp, plain in pairs))
    table.add_section()
    table.add_row("total", *(_cell(dp.total, plain.total) for dp, plain in pairs))
    table.add_row(f"total / plain (at most {MAX_RATIO})", *(f"{dp.total / plain.total:.2f}" for dp, plain in pairs))
    table.add_row(
        "total / plain for any batch size",
        *(f"{dp.total / total:.2f}" for (dp, _), total in zip(pairs, any_size, strict=True)),
    )
    table.add_row(f"analysis and passes (at most {MAX_SHARE:.0%})", *(f"{dp.share:.1%}" for dp, _ in pairs))
    console.print(table)
    for kind in COMPILED_KINDS if len(record.depths) > 1 else ():
        line = record.line(kind)
        console.print(
            f"{kind}: {line.fixed:.1f} s and {line.per_layer:.2f} s a layer; "
            f"no depth is further than {line.deviation:.0%} from that line"
        )


def _cell(private: float | None, plain: float | None) -> str:
    if private is None:
        return ""
    return f"{private:.2f}" if plain is None else f"{private:.2f} ({plain:.2f})"


def main(
    model: Annotated[str, typer.Option(help="a transformer of `python -m tools.bench`")] = "gpt2-t128",
    depths: Annotated[str, typer.Option(help="layers")] = "4,8,16,32",
    mode: Annotated[Trained, typer.Option(help="what is trained")] = Trained.full,
    repeats: Annotated[int, typer.Option(min=1, help="compilations of each kind and depth; medians count")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="threads of torch's kernels on the CPU")] = 2,
    out: Annotated[Path, typer.Option(help="folder for the record and the plot")] = Path("out/bench"),
) -> None:
    """Compile at several depths, print the tables, and write compile_time.json and compile_time.png."""
    if model not in WORKLOADS:
        raise typer.BadParameter(f"unknown model {model}; choose from {', '.join(WORKLOADS)}")
    console = Console(width=max(Console().width, 120), highlight=False)
    workload: Workload = WORKLOADS[model]
    trained: Mode = mode.value
    place = torch.device(device)
    environment = Environment.current(place, torch.float32, threads)
    out.mkdir(parents=True, exist_ok=True)
    found: list[Compilation] = []
    for layers in sorted(map(int, depths.split(","))):
        for kind in COMPILED_KINDS * repeats:
            with ProcessPoolExecutor(1, get_context("spawn"), initializer=prepare_process) as pool:
                deep = workload.resized(layers=layers)
                found.append(pool.submit(measure, deep, kind, trained, place, threads).result())
            console.print(f"{kind}, {layers} layers: {found[-1].total:.1f} s")
        record = CompileRecord(environment, model, workload.sizes, trained, tuple(found))
        (out / "compile_time.json").write_text(record.to_json(), "utf-8")
    show(record, console)
    if can_plot():
        series: dict[str, list[float]] = {
            kind: [record.median(kind, n).total for n in record.depths] for kind in COMPILED_KINDS
        }
        draw_lines(record.depths, series, ("layers", "seconds of compilation"), out / "compile_time.png")
    console.print(f"wrote {out / 'compile_time.json'}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
