"""Write docs/mutation.md: how many mutants each file has, how many are killed, and which survive and why."""

from collections.abc import Sequence

from tools.mutation.results import Result, reasons, summarise
from tools.mutation.tree import Verdict

__all__ = ["as_markdown"]

HEAD = """# Mutants of the analysis and the rules

A mutant is dpgraph with one small mistake: `<` for `<=`, a condition that is always true, an operator that is missing
from a table, an early return that is gone. `python -m tools.mutate` makes all that it can think of in
`dpgraph/provenance/`, `dpgraph/gradients/` and `dpgraph/sites/`, and runs on each the tests that reach its line, the
quick ones first, until one fails. A mutant that no test notices shows a test that is missing or code that is not
needed, unless it is the same program; `tools/mutation/survivors.py` has those, and says why. The guards beside the
analysis have mutants that were written by hand: `python -m tools.mutants`.

Where a survivor led to a test, it was tried again; where it led to code being taken away, it is not counted. So the
counts are those of a sample whose survivors have been dealt with. Another seed draws mutants that nobody has looked at.

"""


def as_markdown(command: str, results: Sequence[Result]) -> str:
    """The whole page."""
    whole = summarise(results)
    known = reasons()
    lines = [
        f"`{command}`: {whole.total} mutants, of which {whole.killed} are killed, {whole.percentage:.1f} %.",
        f"Of the rest, {whole.accepted} have a reason; without them it is {whole.percentage_without_accepted:.1f} %.",
        "",
        "| file | mutants | killed | survivors with a reason | others |",
        "| --- | --: | --: | --: | --: |",
    ]
    for file in sorted({r.file for r in results}):
        part = summarise([r for r in results if r.file == file])
        others = part.total - part.killed - part.accepted
        lines.append(f"| `{file}` | {part.total} | {part.killed} | {part.accepted} | {others} |")
    survivors = [r for r in results if r.verdict is not Verdict.killed]
    lines += ["", "## Survivors", ""]
    by_reason: dict[str, list[Result]] = {}
    for r in survivors:
        by_reason.setdefault(known.get(r.key, "No reason: a test is missing."), []).append(r)
    for reason, several in by_reason.items():
        lines += [reason, "", *(f"- {_line(r)}" for r in several), ""]
    return HEAD + "\n".join(lines).rstrip() + "\n"


def _line(r: Result) -> str:
    return f"`{r.file}`, `{r.scope or 'module'}`: in ``{r.code}`` {r.what}"
