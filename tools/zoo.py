"""Measure every architecture of `tests/zoo` and write the table in docs/zoo.md.

    python -m tools.zoo                                      the columns of the eager backend, ten seconds a model
    python -m tools.zoo --backend inductor --only-missing    those of Inductor, a minute or two a model
    python -m tools.zoo GPT2 ViT                             the rows of these names alone
    python -m tools.zoo --jobs 2                             two models at a time

Every cell is written as soon as it is measured, and what was not asked for stays as it is: a run that was stopped goes
on with `--only-missing`.
"""

import textwrap
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers.utils import logging as transformers_logging

from tests.models.architecture import Architecture
from tests.models.own import OWN
from tests.zoo.architectures import NIGHTLY, REFUSED, ZOO
from tests.zoo.measure import Backend, Row, measure

TABLE = Path(__file__).parents[1] / "docs" / "zoo.md"
HEAD = """# The zoo

Small configurations of architectures as they are, with random weights: flat grouping, clipping R / n, four samples,
float64; every parameter trained ("full"), and biases alone ("bitfit", with zero biases added first where a model has
none); op by op (the eager backend), and through Inductor. `python -m tools.zoo` writes this page; `–` was not measured
yet. Every run of the tests measures those with a star in "full", op by op or through Inductor, and a fifth of them in
"bitfit"; the nightly profile measures all in all ways.

A *form* is what a parameter's per-sample gradient is put into (see [Concepts](concepts.md)); a parameter that is used
twice has two. Counted are the forms of "full". *vmap* counts the operators that had no rule and were mapped over the
samples, in both ways of training. The *error* is the largest relative error of a parameter's clipped sum against a loop
over the samples; models that compute in float32 inside, whatever their parameters are, can come no closer than that.

{summary}

{heading}
"""
COLUMNS = (
    *("model", "parameters", "Outer", "Convolved", "Rows", "Dense", "vmap"),
    *("error, or why it is refused", "error with bitfit", "Inductor", "Inductor, bitfit"),
)
MISSING = "–"
# How many cells of a row, the name apart, are of each backend.
CELLS: dict[Backend, slice] = {"eager": slice(0, 8), "inductor": slice(8, 10)}
EVERY = (*ZOO, *NIGHTLY, *(refusal.architecture for refusal in REFUSED))
FORMS = ("Outer", "Convolved", "Rows", "Dense")


def title(architecture: Architecture) -> str:
    """The first cell of a row."""
    return f"{architecture.name} *" if architecture in ZOO else architecture.name


def measured_eagerly(architecture: Architecture, reason: str = "") -> list[str]:
    """The cells of the eager backend."""
    full, bitfit = measure(architecture), measure(architecture, "bitfit")
    num_parameters = f"{full.num_parameters:,}"
    if full.refusal:
        return [num_parameters, *[""] * (len(FORMS) + 1), f"refused: {reason or full.refusal}", _outcome(bitfit)]
    counts = [str(full.forms.get(kind, 0)) for kind in FORMS]
    return [num_parameters, *counts, str(full.num_fallbacks + bitfit.num_fallbacks), _outcome(full), _outcome(bitfit)]


def measured_through_inductor(architecture: Architecture) -> list[str]:
    """The cells of Inductor."""
    return [_outcome(measure(architecture, mode, "inductor")) for mode in ("full", "bitfit")]


def _outcome(row: Row) -> str:
    if row.refusal:
        return "refused"
    wrong = row.skipped or row.error > row.tolerance
    added = ", biases added" if row.adds_biases else ""
    return f"{'WRONG: ' if wrong else ''}{row.error:.0e}{added}"


def summarise(rows: Mapping[str, list[str]]) -> str:
    """How many are exact, how many are refused, and the share of operators that were mapped by vmap."""
    own = {a.name for a in OWN}
    exact = {name: cells for name, cells in rows.items() if "refused" not in cells[6]}
    through = [cells[CELLS["inductor"]] for cells in rows.values()]
    measured = [cells for cells in through if MISSING not in cells]
    num_own = sum(name in own for name in exact)
    num_forms = sum(int(cell) for cells in exact.values() for cell in cells[1:5])
    num_fallbacks = sum(int(cells[5]) for cells in exact.values())
    return (
        f"{len(exact) - num_own} architectures of transformers and {num_own} of our own are exact, "
        f"{len(rows) - len(exact)} are refused. Of {num_forms:,} forms {num_fallbacks} "
        f"({num_fallbacks / num_forms:.1%}) came from vmap. Through Inductor {len(measured)} were measured, of which "
        f"{sum('refused' in cells for cells in measured)} are refused."
    )


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    backend: Annotated[Backend, typer.Option(help="Whose columns to measure.")] = "eager",
    only_missing: Annotated[bool, typer.Option("--only-missing", help="Only what was not measured yet.")] = False,
    table: Annotated[Path, typer.Option(help="The page.")] = TABLE,
) -> None:
    """Measure, and write the table, row by row."""
    rows = read(table)
    wanted = [
        i
        for i, a in enumerate(EVERY)
        if (not names or any(name in a.name for name in names))
        and not (only_missing and MISSING not in rows[a.name][CELLS[backend]])
    ]
    spawned = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as workers:
        for finished in as_completed([workers.submit(_measured, i, backend) for i in wanted]):
            name, cells, seconds = finished.result()
            rows[name][CELLS[backend]] = cells
            print(f"{seconds:5.1f} s {name}: {' | '.join(cells)}", flush=True)
            table.write_text(page(rows), "utf-8")


def _measured(i: int, backend: Backend) -> tuple[str, list[str], float]:
    """Name and cells of one architecture, and the seconds that it took; runs in a worker."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    architecture = EVERY[i]
    reasons = {refusal.architecture.name: refusal.reason for refusal in REFUSED}
    start = time.process_time()
    if backend == "inductor":
        cells = measured_through_inductor(architecture)
    else:
        cells = measured_eagerly(architecture, reasons.get(architecture.name, ""))
    return architecture.name, cells, time.process_time() - start


def page(rows: Mapping[str, list[str]]) -> str:
    """The page of these cells; a model of which nothing was measured is not in it."""
    known = {a.name: rows[a.name] for a in EVERY if any(cell != MISSING for cell in rows[a.name])}
    lines = [f"| {' | '.join([title(a), *known[a.name]])} |".replace("|  |", "| |") for a in EVERY if a.name in known]
    rule = ["---", *["---:"] * 6, *["---"] * 4]
    heading = f"| {' | '.join(COLUMNS)} |\n| {' | '.join(rule)} |"
    return HEAD.format(summary=textwrap.fill(summarise(known), 120), heading=heading) + "\n".join(lines) + "\n"


def read(table: Path) -> dict[str, list[str]]:
    """The cells of every architecture by its name, as the page has them; what bears a star is not taken from it."""
    lines = [row for row in table.read_text("utf-8").splitlines() if row.startswith("| ")] if table.exists() else []
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    found = {first.removesuffix(" *"): others for first, *others in cells}
    num_cells = CELLS["inductor"].stop
    return {a.name: [*found.get(a.name, []), *[MISSING] * num_cells][:num_cells] for a in EVERY}


if __name__ == "__main__":
    typer.run(main)
