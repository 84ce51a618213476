"""Measure every architecture of `tests/zoo` and write the table in docs/zoo.md: `python -m tools.zoo`.

Takes about ten seconds a model. With names, only their rows are measured anew: `python -m tools.zoo GPT2 ViT`.
"""

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track
from transformers.utils import logging as transformers_logging

from tests.zoo.architectures import REFUSED, ZOO
from tests.zoo.measure import Row, measure

TABLE = Path(__file__).parents[1] / "docs" / "zoo.md"
HEAD = """# The zoo

Small configurations of architectures as they are, with random weights: every parameter trained, flat grouping, clipping
R / n, four samples, float64, eager backend. `python -m tools.zoo` writes this page; every run of the tests measures
these models, and the nightly profile measures as many more, and all of them with biases alone.

A *form* is what a parameter's per-sample gradient is put into (see [Concepts](concepts.md)); a parameter that is used
twice has two. *vmap* counts the operators that had no rule and were mapped over the samples. The *error* is the largest
relative error of a parameter's clipped sum against a loop over the samples; models that compute in float32 inside,
whatever their parameters are, can come no closer than that.

| model | parameters | Outer | Rows | Dense | vmap | error, or why it is refused |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


def line(row: Row, reason: str = "") -> str:
    """A row of the table."""
    if row.refusal:
        return f"| {row.name} | {row.num_parameters:,} | | | | | refused: {reason or row.refusal} |"
    counts = " | ".join(str(row.forms.get(kind, 0)) for kind in ("Outer", "Rows", "Dense"))
    return f"| {row.name} | {row.num_parameters:,} | {counts} | {row.num_fallbacks} | {row.error:.0e} |"


def main(names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all by default.")] = None) -> None:
    """Measure, and write the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    written = TABLE.read_text("utf-8").splitlines() if names and TABLE.exists() else []
    known = {row.split("|")[1].strip(): row for row in written if row.startswith("| ")}
    reasons = {architecture.name: reason for architecture, reason in REFUSED}
    lines = []
    for architecture in track([*ZOO, *(a for a, _ in REFUSED)], "measuring"):
        if architecture.name in known and not any(name in architecture.name for name in names or ()):
            lines.append(known[architecture.name])
        else:
            lines.append(line(measure(architecture), reasons.get(architecture.name, "")))
    TABLE.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
