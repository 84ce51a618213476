"""Make every small mistake that can be made in the analysis and the rules, and see that a test fails.

    python -m tools.mutate                            all of them (hours)
    python -m tools.mutate --sample 300 --seed 1      so many, drawn evenly over the files
    python -m tools.mutate --files 'rules/views'      those of the files whose path contains this
    python -m tools.mutate --again                    those of the last run that survived
    python -m tools.mutate --report --write           what the last run found, without another; writes docs/mutation.md
    python -m tools.mutate --resume ...               go on with the same run, which was stopped

A mutant is made in a copy of the tree; the working tree is never touched. It is killed if one of the tests that reach
its line fails (or cannot be imported, or does not end), and survives if they pass. The tests are asked in the order of
how likely and how quickly they notice, for at most `--budget` seconds a mutant. Survivors that were accepted stand in
`tools/mutation/survivors.py` with the reason. Exit status 1 if another mutant survives, if one that was accepted is
killed, or if an accepted one does not exist any more.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.mutation.child import preload
from tools.mutation.generate import Change, Key, generate, sample
from tools.mutation.judge import Judged, Workshop, within
from tools.mutation.reach import CACHE, ReachMap, find_mentions, find_reach
from tools.mutation.results import Result, load, reasons, save, stale, summarise
from tools.mutation.table import as_markdown
from tools.mutation.tree import ROOT, Verdict

__all__ = ["main"]

MUTATED = ("dpgraph/capture/sizes.py", "dpgraph/gradients", "dpgraph/provenance", "dpgraph/sites")
RESULTS = CACHE / "results.json"
PAGE = ROOT / "docs" / "mutation.md"


def mutated_files() -> list[str]:
    """The files that are mutated, relative to the root."""
    found = [[ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")) for name in MUTATED]
    return [str(path.relative_to(ROOT)) for paths in found for path in paths]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that were asked for; the exit status."""
    options = _parser().parse_args(arguments)
    files = mutated_files()
    everything = [c for file in files for c in generate(file, (ROOT / file).read_text("utf-8"))]
    gone = stale(everything)
    for key in gone:
        print("an accepted survivor is no mutant any more: " + ": ".join(key))
    goes_on = options.again or options.resume or options.report
    command, known = load(RESULTS) if goes_on else (_command(options), [])
    if options.resume and command != _command(options):
        raise SystemExit(f"the run that was stopped is another one: {command}")
    chosen = _chosen(everything, options, known)
    if options.list:
        for change in chosen:
            print(_described(change))
        return 1 if gone else 0
    exists = {change.key for change in everything}
    results = {r.key: r for r in known if r.key in exists}
    if not options.report:
        _run(chosen, files, options.budget, command, results)
    if options.write:
        PAGE.write_text(as_markdown(command, list(results.values())), "utf-8")
    return 1 if _report(results) or gone else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="break the analysis and the rules everywhere; see that a test fails")
    parser.add_argument("--files", default="", help="only files whose path contains this")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn evenly over the files")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="only those of the last run that survived")
    parser.add_argument("--resume", action="store_true", help="go on with the same run, which was stopped")
    parser.add_argument("--budget", type=float, default=20, help="seconds of tests a mutant, as they take unbroken")
    parser.add_argument("--report", action="store_true", help="what the last run found, without another")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md")
    return parser


def _command(options: argparse.Namespace) -> str:
    parts = ["python -m tools.mutate"]
    if options.files:
        parts.append(f"--files {options.files}")
    if options.sample is not None:
        parts.append(f"--sample {options.sample} --seed {options.seed}")
    return " ".join(parts)


def _chosen(everything: list[Change], options: argparse.Namespace, known: Sequence[Result]) -> list[Change]:
    chosen = [change for change in everything if options.files in change.file]
    if options.again:
        survived = {r.key for r in known if r.verdict is not Verdict.killed}
        return [change for change in chosen if change.key in survived]
    drawn = chosen if options.sample is None else sample(chosen, options.sample, options.seed)
    done = {r.key for r in known}
    return [change for change in drawn if change.key not in done]


def _described(change: Change) -> str:
    return f"{change.file}:{change.line} {change.scope}: {change.what}\n    {change.code}"


def _run(
    chosen: Sequence[Change], files: Sequence[str], budget: float, command: str, results: dict[Key, Result]
) -> None:
    """Judge the mutants, print each, and keep the results after each."""
    preload(())
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        reach = find_reach(files, Path(scratch))
        preload(reach.modules)
        mentions = find_mentions((ROOT / file).read_text("utf-8") for file in files)
        workshop = Workshop(Path(scratch))
        wrong = workshop.check_unbroken(within(reach.tests, budget))
        if wrong is not None:
            raise RuntimeError(f"the tests fail without any mutant: {wrong}")
        start = time.perf_counter()
        for i, change in enumerate(chosen):
            judged = _judge(workshop, reach, mentions, change, budget)
            results[change.key] = Result(*_fields(change), judged.verdict, judged.detail)
            print(f"[{i + 1}/{len(chosen)}] {judged.verdict.value:<9}{judged.seconds:5.1f} s  {_described(change)}")
            print(f"    {judged.detail}", flush=True)
            save(RESULTS, command, results.values())
        print(f"{len(chosen)} mutants in {time.perf_counter() - start:.0f} s")


def _judge(workshop: Workshop, reach: ReachMap, mentions: dict[str, set[int]], change: Change, budget: float) -> Judged:
    return workshop.judge(change, within(reach.tests_of(change, mentions), budget))


def _fields(change: Change) -> tuple[str, str, int, str, str]:
    return change.file, change.scope, change.line, change.code, change.what


def _report(results: dict[Key, Result]) -> bool:
    """Print the counts and what is amiss; whether something is."""
    known = reasons()
    amiss = [r for r in results.values() if (r.verdict is Verdict.killed) == (r.key in known)]
    for r in amiss:
        word = "accepted, but killed" if r.verdict is Verdict.killed else r.verdict.value
        print(f"{word}: {r.file}:{r.line} {r.scope}: {r.what}\n    {r.code}")
    whole = summarise(results.values())
    print(
        f"{whole.total} mutants, {whole.killed} killed ({whole.percentage:.1f} %), {whole.accepted} accepted survivors "
        f"({whole.percentage_without_accepted:.1f} % of the others killed)"
    )
    return bool(amiss)


if __name__ == "__main__":
    sys.exit(main())
