"""What it costs to compare a compiled graph with its operators: `python -m tools.bench.validation`.

    python -m tools.bench.validation                                  GPT-2 and ResNet-50
    python -m tools.bench.validation --models gpt2-12-layers --mode bitfit

Batches are of two samples, on which graphs are compared by default. The first comparison may have the backward
compiled, which the first step would otherwise, so it is repeated and the fastest later one counts.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table

from dpgraph import CompileOptions, Validation, dp_compile
from tools.bench.measure import synchronise
from tools.bench.models import WORKLOADS, WithLoss, Workload

__all__ = ["Cost", "measure"]

NUM_SAMPLES = 2
NUM_STEPS = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a model.

    Attributes:
        first_step: of the first step, with compilation and comparison.
        later_step: of one later step, without comparison.
        comparison: of a comparison, when all is compiled.
        validation: what the module says of it.
    """

    first_step: float
    later_step: float
    comparison: float
    validation: Validation


def measure(
    workload: Workload, mode: Literal["full", "bitfit"], device: torch.device, backend: Literal["inductor", "eager"]
) -> Cost:
    """Train a few steps, and compare once more."""
    torch.manual_seed(0)
    model = WithLoss(workload.make(workload.sizes), workload.loss).to(device)
    batch = workload.draw(workload.sizes, NUM_SAMPLES).to(device, torch.float32)
    private = dp_compile(model, mode, options=CompileOptions(backend=backend, verify="always"))
    steps, compared = [], [0.0]
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        private(batch.inputs, batch.targets).sum().backward()
        synchronise(device)
        steps.append(time.perf_counter() - start)
        compared.append(private.validations[0].seconds)
    comparison = min(after - before for before, after in pairwise(compared[1:]))
    return Cost(steps[0], min(steps[1:]) - comparison, comparison, private.validations[0])


def main(
    models: Annotated[str, typer.Option(help="models of `python -m tools.bench`")] = "gpt2-12-layers,resnet50-gn",
    mode: Annotated[str, typer.Option(help="full or bitfit")] = "full",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    backend: Annotated[str, typer.Option(help="inductor or eager")] = "inductor",
    threads: Annotated[int, typer.Option(min=1, help="threads of torch's kernels on the CPU")] = 2,
) -> None:
    """Print the seconds of each model."""
    torch.set_num_threads(threads)
    table = Table(title=f"seconds, {mode}, {backend}, {device}")
    for column in ("model", "first step", "later step", "comparison", "share of the first", "largest difference"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in models.split(","):
        cost = measure(WORKLOADS[name], mode, torch.device(device), backend)  # type: ignore[arg-type]
        share = cost.comparison / cost.first_step
        difference = f"{cost.validation.largest_difference:.1e}"
        figures = [cost.first_step, cost.later_step, cost.comparison]
        table.add_row(name, *(f"{x:.2f}" for x in figures), f"{share:.1%}", difference)
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
