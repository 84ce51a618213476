"""Draw random programs, and hold each to what is known of it.

    python -m tools.random_programs --programs 5000 --jobs 2 --seed 0
    python -m tools.random_programs --seed 0 --only 137      one of them again, with its traceback

The grammar is that of tests/programs. A program without a planted step must agree with a loop over its samples; one
into which a step was planted that mixes samples must be refused as unsound. The draws depend on the seed alone, never
on what came of the checks. A worker process serves about `PROGRAMS_PER_WORKER` programs and goes, as compilations leave
memory behind.

Exit status 1 if a program disagreed, was accepted though it mixes, or was refused though it is sound.
"""

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from multiprocessing import get_context

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from rich.console import Console
from rich.table import Table

from dpgraph import DPGraphError
from tests.programs.check import Case, cases, check_case
from tests.programs.grammar import ImageProgram

__all__ = ["Outcome", "Verdict", "check", "check_all", "draw_cases", "main"]

PROGRAMS_PER_WORKER = 100
PROGRAMS_PER_DRAW = 500
SECONDS_BETWEEN_REPORTS = 60


class Verdict(str, Enum):
    """What became of a program."""

    exact = "exact"
    refused = "planted and refused"
    disagrees = "DISAGREES"
    accepted = "ACCEPTED UNSOUND"
    refused_sound = "REFUSED THOUGH SOUND"
    refused_otherwise = "REFUSED FOR ANOTHER REASON"
    crashed = "CRASHED"


PASSED = {Verdict.exact, Verdict.refused}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A program by its place among the draws, what became of it, and why if it failed."""

    index: int
    case: Case
    verdict: Verdict
    error: float
    detail: str
    seconds: float


def draw_cases(num_programs: int, seed: int) -> Iterator[Case]:
    """That many programs; the same ones for the same seed, and the first ones are the same for any number of them."""
    drawn = 0
    for block in range(num_programs):
        cases_of_block = _draw_block(seed * 1_000_003 + block)
        yield from cases_of_block[: num_programs - drawn]
        drawn += len(cases_of_block)
        if drawn >= num_programs:
            return


def _draw_block(seed: int) -> list[Case]:
    drawn: list[Case] = []

    @with_seed(seed)
    @settings(
        max_examples=PROGRAMS_PER_DRAW,
        phases=[Phase.generate],
        database=None,
        derandomize=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def note(case: Case) -> None:
        drawn.append(case)

    note()
    return drawn


def check(numbered: tuple[int, Case]) -> Outcome:
    """What becomes of one program."""
    index, case = numbered
    torch.set_num_threads(1)
    start = time.perf_counter()
    error, detail = 0.0, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = check_case(case)
        except AssertionError as failure:
            verdict = Verdict.accepted if case.program.mixes is not None else Verdict.disagrees
            detail = f"{failure}"
        except DPGraphError as failure:
            verdict = Verdict.refused_sound if case.program.mixes is None else Verdict.refused_otherwise
            detail = f"{type(failure).__name__}: {failure}"
        except Exception:  # noqa: BLE001  a crash is a failure of this program, and no reason to leave the others
            verdict, detail = Verdict.crashed, traceback.format_exc(limit=-5)
        else:
            verdict, error = (Verdict.refused, 0.0) if found is None else (Verdict.exact, found)
    return Outcome(index, case, verdict, error, detail, time.perf_counter() - start)


def check_all(drawn: Sequence[tuple[int, Case]], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of the draws; in this process if there is one job and few programs."""
    if jobs == 1 and len(drawn) <= PROGRAMS_PER_WORKER:
        yield from map(check, drawn)
        return
    left = list(drawn)
    while left:
        # New pools instead of `max_tasks_per_child`, with which Python 3.11 can wait for ever.
        done = 0
        try:
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                for outcome in pool.map(check, left[: jobs * PROGRAMS_PER_WORKER]):
                    done += 1
                    yield outcome
        except BrokenProcessPool:
            index, case = left[done]
            done += 1
            detail = "a process died, of this program or of one that ran at the same time"
            yield Outcome(index, case, Verdict.crashed, 0.0, detail, 0.0)
        left = left[done:]


def kind(case: Case) -> str:
    """The kind of a program, for the table."""
    program = case.program
    if isinstance(program, ImageProgram):
        return "images"
    return "sequences of ids" if program.from_ids else "sequences of numbers"


def summary(outcomes: Sequence[Outcome]) -> Table:
    """How many programs of each kind came to what, and the largest relative error of the exact ones."""
    table = Table(title=f"{len(outcomes)} random programs")
    for heading in ("kind", "programs", *(v.value for v in Verdict), "largest relative error"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    kinds = sorted({kind(o.case) for o in outcomes})
    for name, members in [*((k, [o for o in outcomes if kind(o.case) == k]) for k in kinds), ("all", outcomes)]:
        counts = Counter(o.verdict for o in members)
        worst = max((o.error for o in members), default=0.0)
        table.add_row(name, str(len(members)), *(str(counts[v]) for v in Verdict), f"{worst:.1e}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and check; the exit status."""
    parser = argparse.ArgumentParser(description="draw random programs and hold each to what is known of it")
    parser.add_argument("--programs", type=int, default=5000, help="how many to draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="check the program at this place alone")
    options = parser.parse_args(arguments)
    # Wide, so that a table in a log is whole.
    console = Console(width=max(Console().width, 160), highlight=False)
    last = options.programs if options.only is None else options.only + 1
    drawn = list(enumerate(draw_cases(last, options.seed)))[options.only :]
    planted = sum(case.program.mixes is not None for _, case in drawn)
    console.print(f"{len(drawn)} programs drawn with seed {options.seed}, {planted} of them with a step that mixes")
    start = reported = time.perf_counter()
    outcomes: list[Outcome] = []
    for outcome in check_all(drawn, options.jobs):
        outcomes.append(outcome)
        if outcome.verdict not in PASSED:
            again = f"python -m tools.random_programs --seed {options.seed} --only {outcome.index}"
            console.print(
                f"\n{outcome.verdict.value}: {again}\n{outcome.case!r}\n{outcome.detail}\n",
                markup=False,
                soft_wrap=True,
            )
        if time.perf_counter() - reported > SECONDS_BETWEEN_REPORTS:
            reported = time.perf_counter()
            failed = sum(o.verdict not in PASSED for o in outcomes)
            console.print(f"{len(outcomes)} of {len(drawn)} after {reported - start:.0f} s, {failed} failed")
    console.print(summary(outcomes))
    seconds = time.perf_counter() - start
    console.print(f"{seconds:.0f} s, {sum(o.seconds for o in outcomes) / max(len(outcomes), 1):.1f} s a program")
    return 0 if all(o.verdict in PASSED for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
