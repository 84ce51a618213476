"""Measure every architecture of `tests/zoo` and write the table in docs/zoo.md: `python -m tools.zoo`.

Takes about ten seconds a model. With names, only their rows are measured anew: `python -m tools.zoo GPT2 ViT`.
`--jobs 2` measures two models at a time.
"""

import time
import warnings
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
from tests.zoo.measure import Row, measure

TABLE = Path(__file__).parents[1] / "docs" / "zoo.md"
HEAD = """# The zoo

Small configurations of architectures as they are, with random weights: flat grouping, clipping R / n, four samples,
float64, eager backend; every parameter trained ("full"), and biases alone ("bitfit", with zero biases added first where
a model has none). `python -m tools.zoo` writes this page. Every run of the tests measures those with a star in "full"
and a third of them in "bitfit"; the nightly profile measures all in both ways.

A *form* is what a parameter's per-sample gradient is put into (see [Concepts](concepts.md)); a parameter that is used
twice has two. Counted are the forms of "full". *vmap* counts the operators that had no rule and were mapped over the
samples, in both ways of training. The *error* is the largest relative error of a parameter's clipped sum against a loop
over the samples; models that compute in float32 inside, whatever their parameters are, can come no closer than that.

{summary}

| model | parameters | Outer | Convolved | Rows | Dense | vmap | error, or why it is refused | error with bitfit |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""
EVERY = (*ZOO, *NIGHTLY, *(refusal.architecture for refusal in REFUSED))
FORMS = ("Outer", "Convolved", "Rows", "Dense")


def title(architecture: Architecture) -> str:
    """The first cell of a row."""
    return f"{architecture.name} *" if architecture in ZOO else architecture.name


def line(architecture: Architecture, reason: str = "") -> str:
    """A row of the table, measured."""
    full, bitfit = measure(architecture), measure(architecture, "bitfit")
    start = f"| {title(architecture)} | {full.num_parameters:,} |"
    if full.refusal:
        return f"{start}{' |' * (len(FORMS) + 1)} refused: {reason or full.refusal} | {_outcome(bitfit)} |"
    counts = " | ".join(str(full.forms.get(kind, 0)) for kind in FORMS)
    return f"{start} {counts} | {full.num_fallbacks + bitfit.num_fallbacks} | {_outcome(full)} | {_outcome(bitfit)} |"


def _outcome(row: Row) -> str:
    if row.refusal:
        return "refused"
    wrong = row.skipped or row.error > row.tolerance
    added = ", biases added" if row.adds_biases else ""
    return f"{'WRONG: ' if wrong else ''}{row.error:.0e}{added}"


def summarise(lines: list[str]) -> str:
    """How many are exact, how many are refused, and the share of operators that were mapped by vmap."""
    rows = [[cell.strip() for cell in text.split("|")[1:-1]] for text in lines]
    own = {a.name for a in OWN}
    exact = [row for row in rows if "refused" not in row[-2]]
    num_own = sum(row[0].removesuffix(" *") in own for row in exact)
    num_forms = sum(int(cell) for row in exact for cell in row[2:-3])
    num_fallbacks = sum(int(row[-3]) for row in exact)
    return (
        f"{len(exact) - num_own} architectures of transformers and {num_own} of our own are exact, "
        f"{len(rows) - len(exact)} are refused. Of {num_forms:,} forms {num_fallbacks} "
        f"({num_fallbacks / num_forms:.1%}) came from vmap."
    )


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Measure, and write the table, row by row: what was measured before an interruption stays."""
    rows = _written() if names else {}
    wanted = [i for i, a in enumerate(EVERY) if a.name not in rows or any(name in a.name for name in names or ())]
    spawned = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as workers:
        for finished in as_completed([workers.submit(_measured, i) for i in wanted]):
            name, row, seconds = finished.result()
            rows[name] = row
            print(f"{seconds:5.1f} s {row}", flush=True)
            lines = [rows[a.name] for a in EVERY if a.name in rows]
            TABLE.write_text(HEAD.format(summary=summarise(lines)) + "\n".join(lines) + "\n", "utf-8")


def _measured(i: int) -> tuple[str, str, float]:
    """Name and row of one architecture, and the seconds that it took; runs in a worker."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    architecture = EVERY[i]
    reasons = {refusal.architecture.name: refusal.reason for refusal in REFUSED}
    start = time.process_time()
    row = line(architecture, reasons.get(architecture.name, ""))
    return architecture.name, row, time.process_time() - start


def _written() -> dict[str, str]:
    """The rows that the table has, by name; what bears a star is not taken from it."""
    cells = [row.split("|", 2) for row in TABLE.read_text("utf-8").splitlines() if row.startswith("| ")]
    found = {first.strip().removesuffix(" *"): rest for _, first, rest in cells}
    return {a.name: f"| {title(a)} |{found[a.name]}" for a in EVERY if a.name in found}


if __name__ == "__main__":
    typer.run(main)
