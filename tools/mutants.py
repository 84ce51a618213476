"""Break each guard of dpgraph in turn, and see that a test fails.

    python -m tools.mutants                    every mutant of tools/mutant_table.py
    python -m tools.mutants clip norm          those whose name contains one of the words
    python -m tools.mutants --jobs 2

A mutant is a piece of source text that is replaced in a copy of the tree; the working tree is never touched. It is
killed if its tests run and one of them fails. It survives if they pass: then the guard is not tested. A mutant whose
tests cannot even be collected is broken, and so is one whose text is not found exactly once: the table is stale.
The same tests must pass on an unbroken copy first. Exit status 1 if a mutant survives or is broken.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tools.mutant_table import MUTANTS, Mutant
from tools.mutation.tree import PYTEST_OPTIONS, ROOT, Verdict, copy_tree, environment

__all__ = ["Outcome", "apply", "judge", "main", "run_tests"]

TIMEOUT_SECONDS = 300
# pytest's exit status: 0 all passed, 1 some failed; everything else means that the tests did not run.
PASSED, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """A mutant, what became of it, and why."""

    mutant: Mutant
    verdict: Verdict
    detail: str
    seconds: float


def apply(mutant: Mutant, text: str) -> str:
    """The text of the file with the guard broken.

    Raises:
        ValueError: the source text does not occur exactly once, or the replacement changes nothing.
    """
    count = text.count(mutant.source)
    if count != 1:
        raise ValueError(f"{mutant.file}: the text occurs {count} times, not once: {mutant.source!r}")
    if mutant.source == mutant.replacement:
        raise ValueError(f"{mutant.file}: the replacement is the same text")
    return text.replace(mutant.source, mutant.replacement)


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Exit status and last lines of pytest on a copy of the tree."""
    command = [sys.executable, "-m", "pytest", *PYTEST_OPTIONS, *tests]
    variables = {**os.environ, **environment(tree)}
    try:
        done = subprocess.run(
            command, cwd=tree, env=variables, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end after {TIMEOUT_SECONDS} s"
    return done.returncode, "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])


def judge(mutant: Mutant, tree: Path) -> Outcome:
    """Break the guard in `tree`, run its tests, and mend it again."""
    start = time.perf_counter()
    path = tree / mutant.file
    original = path.read_text("utf-8")
    try:
        path.write_text(apply(mutant, original), "utf-8")
    except ValueError as error:
        return Outcome(mutant, Verdict.broken, str(error), 0.0)
    try:
        status, output = run_tests(tree, mutant.tests)
    finally:
        path.write_text(original, "utf-8")
    verdict = {PASSED: Verdict.survived, FAILED: Verdict.killed}.get(status, Verdict.broken)
    return Outcome(mutant, verdict, output, time.perf_counter() - start)


def judge_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of the table; each job has a copy of the tree to itself."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees: SimpleQueue[Path] = SimpleQueue()
        for i in range(jobs):
            tree = Path(scratch) / str(i)
            copy_tree(ROOT, tree)
            trees.put(tree)

        def work(mutant: Mutant) -> Outcome:
            tree = trees.get()
            try:
                return judge(mutant, tree)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(work, mutants)


def check_unbroken(mutants: Sequence[Mutant]) -> str | None:
    """None if all tests pass on a copy as it is, and it is the copy that they test; else what is wrong."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tree = Path(scratch) / "unbroken"
        copy_tree(ROOT, tree)
        status, output = run_tests(tree, tests)
        if status != PASSED:
            return f"the tests fail without any mutant (exit status {status}):\n{output}"
        package = tree / "dpgraph" / "__init__.py"
        package.write_text("assert False, 'the copy is what is tested'\n", "utf-8")
        if run_tests(tree, tests[:1])[0] == PASSED:
            return "the tests do not import dpgraph from the copy of the tree, so a mutant would not be seen"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that were asked for; the exit status."""
    parser = argparse.ArgumentParser(description="break each guard in turn and see that a test fails")
    parser.add_argument("words", nargs="*", help="only mutants whose name or file contains one of these")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.words or any(w in f"{m.name} {m.file}" for w in options.words)]
    if options.list or not chosen:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.name}")
        return 0 if chosen else 1
    start = time.perf_counter()
    wrong = check_unbroken(chosen)
    if wrong is not None:
        print(wrong)
        return 1
    counts = dict.fromkeys(Verdict, 0)
    for outcome in judge_all(chosen, options.jobs):
        counts[outcome.verdict] += 1
        mutant = outcome.mutant
        print(f"{outcome.verdict.value:<9}{outcome.seconds:6.1f} s  {mutant.file}: {mutant.name}", flush=True)
        if outcome.verdict is not Verdict.killed:
            print("    " + outcome.detail.replace("\n", "\n    "))
    summary = ", ".join(f"{count} {verdict.value.lower()}" for verdict, count in counts.items())
    print(f"{len(chosen)} mutants: {summary}, in {time.perf_counter() - start:.0f} s")
    return 0 if counts[Verdict.killed] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
