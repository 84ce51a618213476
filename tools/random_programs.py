"""Draw random programs, and hold each to what is known of it.

    python -m tools.random_programs --programs 5000 --jobs 2 --seed 0
    python -m tools.random_programs --seed 0 --only 137      one of them again, with its traceback
    python -m tools.random_programs --programs 500 --backend inductor --log inductor.jsonl

Through Inductor, whose compilations take seconds each, many sound programs are compiled as one graph; planted ones
never come that far, and go by themselves. With `--log` each outcome is written down at once, and what stands there
already is not checked again: a run that was stopped goes on.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from rich.console import Console
from rich.table import Table

from dpgraph import CompileOptions, DPGraphError
from tests.programs.check import Case, cases, check_case, small_case
from tests.programs.grammar import ImageProgram
from tests.programs.together import measure_together
from tools.outcomes import Log

__all__ = ["Outcome", "Verdict", "check", "check_all", "draw_cases", "main", "pack"]

PROGRAMS_PER_WORKER = 100
PROGRAMS_PER_DRAW = 500
# One graph of more would be no cheaper for each, and dearer if one of them fails.
PROGRAMS_TOGETHER = 24
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


Numbered = tuple[int, Case]
Pack = tuple[Numbered, ...]


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


def pack(drawn: Sequence[Numbered], backend: str) -> list[Pack]:
    """What is checked by one task: through Inductor sound programs that may be one graph, and else one program."""
    if backend == "eager":
        return [(numbered,) for numbered in drawn]
    packs: list[Pack] = [(numbered,) for numbered in drawn if numbered[1].program.mixes is not None]
    alike: dict[object, list[Numbered]] = {}
    for index, case in drawn:
        if case.program.mixes is None:
            key = case.clipping, small_case(case).num_samples
            alike.setdefault(key, []).append((index, case))
    for several in alike.values():
        packs += [tuple(several[i : i + PROGRAMS_TOGETHER]) for i in range(0, len(several), PROGRAMS_TOGETHER)]
    return packs


def check(programs: Pack, backend: str = "eager") -> list[Outcome]:
    """What becomes of the programs of a pack."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _found([case for _, case in programs], CompileOptions(backend))
    seconds = (time.perf_counter() - start) / len(programs)
    return [Outcome(index, case, *_verdict(case, e), seconds) for (index, case), e in zip(programs, found, strict=True)]


def _found(several: Sequence[Case], options: CompileOptions) -> list[float | Exception | None]:
    """For each the largest error, None if it was refused as it has to be, or what was raised."""
    try:
        if len(several) == 1:
            return [check_case(several[0], options)]
        return [*measure_together([small_case(c) for c in several], clipping=several[0].clipping, options=options)]
    except Exception as error:  # noqa: BLE001  a crash is a failure of this program, and no reason to leave the others
        return [error for _ in several]


def _verdict(case: Case, found: float | Exception | None) -> tuple[Verdict, float, str]:
    """The verdict, the error of an exact program, and why it failed."""
    planted = case.program.mixes is not None
    match found:
        case AssertionError():
            return (Verdict.accepted if planted else Verdict.disagrees), 0.0, str(found)
        case DPGraphError():
            verdict = Verdict.refused_otherwise if planted else Verdict.refused_sound
            return verdict, 0.0, f"{type(found).__name__}: {found}"
        case Exception():
            return Verdict.crashed, 0.0, "".join(traceback.format_exception(found, limit=-5))
        case None:
            return Verdict.refused, 0.0, ""
    return Verdict.exact, found, ""


def check_all(packs: Sequence[Pack], jobs: int, backend: str = "eager") -> Iterator[Outcome]:
    """Outcomes in the order of the packs; in this process if there is one job and few programs."""
    work: Callable[[Pack], list[Outcome]] = partial(check, backend=backend)
    if jobs == 1 and sum(map(len, packs)) <= PROGRAMS_PER_WORKER:
        for several in packs:
            yield from work(several)
        return
    left = list(packs)
    while left:
        # New pools instead of `max_tasks_per_child`, with which Python 3.11 can wait for ever.
        done = 0
        try:
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                for outcomes in pool.map(work, _first(left, jobs * PROGRAMS_PER_WORKER)):
                    done += 1
                    yield from outcomes
        except BrokenProcessPool:
            detail = "a process died, of this program or of one that ran at the same time"
            yield from (Outcome(i, case, Verdict.crashed, 0.0, detail, 0.0) for i, case in left[done])
            done += 1
        left = left[done:]


def _first(packs: Sequence[Pack], num_programs: int) -> list[Pack]:
    """The first packs, of about so many programs, and at least one."""
    counts = [sum(map(len, packs[:i])) for i in range(len(packs))]
    return [several for several, before in zip(packs, counts, strict=True) if before < num_programs]


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


def known_outcomes(log: Log, key: Sequence[object], drawn: Sequence[Numbered]) -> list[Outcome]:
    """Outcomes of an earlier run with the same key, which says of what."""
    cases_by_index = dict(drawn)
    return [
        Outcome(x["index"], cases_by_index[x["index"]], Verdict(x["verdict"]), x["error"], x["detail"], x["seconds"])
        for x in log.read()
        if x["of"] == list(key) and x["index"] in cases_by_index
    ]


def line_of(key: Sequence[object], o: Outcome) -> dict[str, object]:
    """What is kept of an outcome; its program follows from the key and its place."""
    found = {"index": o.index, "verdict": o.verdict.value, "error": o.error, "seconds": o.seconds, "detail": o.detail}
    return {"of": list(key), **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and check; the exit status."""
    parser = argparse.ArgumentParser(description="draw random programs and hold each to what is known of it")
    parser.add_argument("--programs", type=int, default=5000, help="how many to draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="check the program at this place alone")
    parser.add_argument("--backend", choices=["eager", "inductor"], default="eager")
    parser.add_argument("--log", type=Path, help="file of outcomes to go on with, and to add to")
    options = parser.parse_args(arguments)
    # Wide, so that a table in a log is whole.
    console = Console(width=max(Console().width, 160), highlight=False)
    last = options.programs if options.only is None else options.only + 1
    drawn = list(enumerate(draw_cases(last, options.seed)))[options.only :]
    planted = sum(case.program.mixes is not None for _, case in drawn)
    console.print(f"{len(drawn)} programs drawn with seed {options.seed}, {planted} of them with a step that mixes")
    key = (options.seed, options.backend)
    log = Log(options.log)
    outcomes = known_outcomes(log, key, drawn)
    known = {o.index for o in outcomes}
    packs = pack([numbered for numbered in drawn if numbered[0] not in known], options.backend)
    start = reported = time.perf_counter()
    for outcome in check_all(packs, options.jobs, options.backend):
        outcomes.append(outcome)
        log.add(line_of(key, outcome))
        if outcome.verdict not in PASSED:
            again = f"python -m tools.random_programs --seed {options.seed} --only {outcome.index}"
            again += f" --backend {options.backend}" if options.backend != "eager" else ""
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
