"""Time and memory of a training step, private and not: `python -m tools.bench`.

    python -m tools.bench                       all models, ordinary training and dpgraph
    python -m tools.bench --models gpt2-t128 --variants plain-full,dp-full --rounds 25
    python -m tools.bench --models gpt2-t128-peers --variants dp-full,opacus-hooks-full,opacus-ghost-full
    python -m tools.bench --device cuda --dtype bfloat16 --limit-gib 70

Each model has a process of its own, in which its variants take turns. A variant's gradients are held against a loop
over the samples before it is timed; one that is wrong is reported and not timed. Writes record.json and, with
matplotlib, the plots.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from enum import Enum
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from tools.bench.models import WORKLOADS, Workload
from tools.bench.plots import can_plot, draw
from tools.bench.record import Environment, Record, Result, Status, WorkloadRecord
from tools.bench.run import VARIANTS, Settings, prepare_process, run_workload
from tools.bench.table import show

DEFAULT_MODELS = [name for name in WORKLOADS if not name.endswith("-peers")]
DEFAULT_VARIANTS = ("plain-full", "dp-full", "plain-bitfit", "dp-bitfit")


class Precision(str, Enum):
    """Of parameters and inputs."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float64 = "float64"


def run_apart(workload: Workload, variants: list[str], settings: Settings) -> WorkloadRecord:
    """Measure one model in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=prepare_process) as pool:
        try:
            return pool.submit(run_workload, workload, variants, settings).result()
        except BrokenProcessPool:
            died = Result(
                "", Status.failed, reason="its process ended without a result, as it does when memory runs out"
            )
            return WorkloadRecord(
                workload.name, workload.sizes, 0, tuple(replace(died, variant=name) for name in variants)
            )


def _chosen(text: str, known: list[str]) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
    return names


def main(
    models: Annotated[str, typer.Option(help=f"which of {', '.join(WORKLOADS)}")] = ",".join(DEFAULT_MODELS),
    variants: Annotated[str, typer.Option(help=f"which of {', '.join(VARIANTS)}")] = ",".join(DEFAULT_VARIANTS),
    rounds: Annotated[int, typer.Option(min=1, help="rounds that count")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="steps of a variant's turn")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    dtype: Annotated[Precision, typer.Option(help="of parameters and inputs")] = Precision.float32,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch's kernels on the CPU")] = 2,
    batch: Annotated[int | None, typer.Option(min=2, help="B, samples, in place of the model's own")] = None,
    length: Annotated[int | None, typer.Option(min=2, help="T, tokens or pixels of a side")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="blocks of a transformer")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="features of a token")] = None,
    memory: Annotated[bool, typer.Option(help="measure the peak of tensor memory too")] = True,
    limit_gib: Annotated[float, typer.Option(min=0, help="memory for the largest batch; 0 leaves it out")] = 0.0,
    out: Annotated[Path, typer.Option(help="folder for the record and the plots")] = Path("out/bench"),
) -> None:
    """Measure the variants in turns, print tables, and write record.json and the plots."""
    console = Console(width=max(Console().width, 120), highlight=False)
    names = _chosen(variants, list(VARIANTS))
    limit = int(limit_gib * 2**30)
    settings = Settings(rounds, steps, limit, torch.device(device), getattr(torch, dtype.value), threads, memory)
    sizes = {"batch": batch, "length": length, "layers": layers, "width": width}
    changes = {name: size for name, size in sizes.items() if size is not None}
    environment = Environment.current(settings.device, settings.dtype, threads)
    record = Record(environment, rounds, steps, limit, ())
    out.mkdir(parents=True, exist_ok=True)
    for name in _chosen(models, list(WORKLOADS)):
        console.print(f"measuring {name}")
        found = run_apart(WORKLOADS[name].resized(**changes), names, settings)
        record = replace(record, workloads=(*record.workloads, found))
        (out / "record.json").write_text(record.to_json(), "utf-8")
    show(record, console)
    written = draw(record, out) if can_plot() else []
    console.print(f"wrote {', '.join(map(str, (out / 'record.json', *written)))}", soft_wrap=True)
    if not can_plot():
        console.print("no plots: matplotlib is not installed (pip install '.[bench]')")


if __name__ == "__main__":
    typer.run(main)
