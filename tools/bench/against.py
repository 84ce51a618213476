"""A training step of this tree's dpgraph against that of another checkout: `python -m tools.bench.against OTHER_TREE`.

    python -m tools.bench.against /tmp/before                                 gpt2-t128, dp-full and plain-full
    python -m tools.bench.against /tmp/before --models gpt2-t128 --lengths 32:16,128,512 --rounds 15 --pairs 2
    python -m tools.bench.against .                                           what a ratio says of no change at all

Each tree has a process of its own, with Inductor's caches of its own, in which the bench of that tree makes the model,
checks the gradients and takes the steps; this file alone is run in both. One of them works at a time: this, other,
other, this. Ordinary training, "plain-full", has nothing of dpgraph: how far its ratio is from 1 is what this machine
cannot tell. Where memory happens to lie differs from process to process, and --pairs takes new ones. Writes a JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table

import dpgraph
from tools.bench import measure, run
from tools.bench.models import WORKLOADS, Sizes
from tools.bench.record import Environment, Ratio, Record, Result, Status, ratio

__all__ = ["Compared", "Request", "compare", "show"]

Steps = Mapping[str, Callable[[], None]]
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='worker')"


@dataclass(frozen=True, slots=True)
class Request:
    """What both processes are asked for, in plain words: the trees' classes may differ; changes are of its sizes."""

    model: str
    changes: Mapping[str, int]
    variants: Sequence[str]
    rounds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A variant in both trees, in one pair of processes; seconds are by round, and empty unless both took steps."""

    model: str
    sizes: Sizes
    pair: int
    this: Result
    other: Result

    @property
    def ratio(self) -> Ratio | None:
        """Of this tree's time to the other's in the same round; None if either was not timed."""
        return ratio(self.this, self.other) if self.this.seconds and self.other.seconds else None


@contextmanager
def working(tree: Path, cache: Path) -> Iterator[Connection]:
    """A pipe to a new process, which imports from the tree and writes nothing into it."""
    ours, theirs = Pipe()
    path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", START, str(Path(__file__).resolve()), str(theirs.fileno())]
    with ours, subprocess.Popen(command, cwd=tree, env={**os.environ, **own}, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield ours
        except BaseException:
            process.terminate()
            raise


def serve(channel: Connection) -> None:
    """In the worker: the tree's own bench, with turns that come when the parent asks for them."""
    here = Path.cwd()
    for module in (dpgraph, measure, run):
        if not Path(str(module.__file__)).resolve().is_relative_to(here):
            raise RuntimeError(f"{module.__name__} is that of {module.__file__}, and not of {here}")
    request = Request(**channel.recv())
    run.prepare_process()
    settings = run.Settings(rounds=request.rounds, threads=request.threads, memory=False)
    workload = WORKLOADS[request.model].resized(**request.changes)
    with patch.object(run, "time_in_turns", partial(take_turns, channel)):
        found = run.run_workload(workload, request.variants, settings)
    if not any(result.status is Status.timed for result in found.results):
        take_turns(channel, {}, request.rounds, 1, settings.device)
    environment = Environment.current(settings.device, settings.dtype, request.threads)
    channel.send([Record(environment, request.rounds, 1, 0, (found,)).to_json()])


def take_turns(
    channel: Connection, steps: Steps, rounds: int, steps_of_a_turn: int, device: torch.device
) -> dict[str, tuple[float, ...]]:
    """In place of `time_in_turns`, whose single turn it takes of whom the parent names, until that names no one."""
    channel.send(list(steps))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    while name := channel.recv():
        with patch.object(measure, "WARM_UP_ROUNDS", 0):
            seconds[name] += measure.time_in_turns({name: steps[name]}, 1, steps_of_a_turn, device)[name]
        channel.send([name])
    return {name: tuple(found[-rounds:]) for name, found in seconds.items()}


def compare(request: Request, trees: Sequence[Path], caches: Sequence[Path]) -> list[Record]:
    """Measure one model in both trees, in two new processes; a record of each tree."""
    with ExitStack() as stack:
        workers = [stack.enter_context(working(*place)) for place in zip(trees, caches, strict=True)]
        for worker in workers:
            worker.send(asdict(request))
        ready = [hear(worker) for worker in workers]
        for turn in range(measure.WARM_UP_ROUNDS + request.rounds):
            for name in (name for name in request.variants if all(name in names for names in ready)):
                for worker in workers if turn % 2 == 0 else reversed(workers):
                    worker.send(name)
                    hear(worker)
        for worker in workers:
            worker.send("")
        return [Record.from_json(hear(worker)[0]) for worker in workers]


def hear(worker: Connection) -> list[str]:
    """What a worker has to say: which variants can take steps, which one took a turn, or, at last, its record."""
    try:
        said: list[str] = worker.recv()
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("a worker ended without a result; its own error, with its tree, is above") from error
    return said


def show(found: Sequence[Compared], environments: Sequence[Environment], console: Console) -> None:
    """Print a table of medians and ratios, a line a variant and pair of processes, and what was not timed."""
    this, other = environments
    console.print(f"{this.device}, {this.threads} threads, commit {this.commit or '?'} against {other.commit or '?'}")
    table = Table(title="time of a step: this tree against the other")
    for column in ("model", "variant", "T", "B", "pair", "this ms", "other ms", "this / other", "quartiles"):
        table.add_column(column, justify="left" if column in ("model", "variant") else "right", no_wrap=True)
    for one in found:
        name, length, results = one.this.variant, one.sizes.length, {"this": one.this, "other": one.other}
        for tree, result in results.items():
            if result.status is not Status.timed:
                console.print(f"{tree}: {one.model}, T={length}, {name}, {result.status.value}: {result.reason}")
        if times := one.ratio:
            numbers = map(str, (length, one.sizes.batch, one.pair))
            medians = (f"{1e3 * result.quartiles[1]:.1f}" for result in results.values())
            quartiles = f"{times.median:.3f}", f"{times.low:.3f} to {times.high:.3f}"
            table.add_row(one.model, name, *numbers, *medians, *quartiles)
    console.print(table)


def sizes_of(lengths: str, own: Sizes) -> list[dict[str, int]]:
    """The changes for each of "T" or "T:B"; without B as many samples as keep B * T, and two at least.

    >>> own = Sizes(batch=8, length=128, layers=4, width=384, heads=6, classes=5000)
    >>> sizes_of("32:16,512", own)
    [{'length': 32, 'batch': 16}, {'length': 512, 'batch': 2}]
    """
    each = [text.partition(":") for text in lengths.split(",") if text]
    return [{"length": int(T), "batch": int(B or max(2, own.batch * own.length // int(T)))} for T, _, B in each] or [{}]


def main(
    other_tree: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="another checkout")],
    models: Annotated[str, typer.Option(help=f"which of {', '.join(WORKLOADS)}")] = "gpt2-t128",
    variants: Annotated[str, typer.Option(help=f"which of {', '.join(run.VARIANTS)}")] = "dp-full,plain-full",
    lengths: Annotated[str, typer.Option(help="T or T:B, in place of each model's own: 32:16,128,512:2")] = "",
    layers: Annotated[int | None, typer.Option(min=1, help="blocks of a transformer")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="rounds that count")] = 25,
    pairs: Annotated[int, typer.Option(min=1, help="pairs of processes for each model, one after the other")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch's kernels")] = 1,
    out: Annotated[Path, typer.Option(help="the JSON")] = Path("out/bench/against.json"),
) -> None:
    """Compare the models in turns, print a table, and write the JSON."""
    console = Console(width=max(Console().width, 140), highlight=False, markup=False)
    trees = [Path(__file__).resolve().parents[2], other_tree.resolve()]
    names, depth = variants.split(","), {"layers": layers} if layers else {}
    if unknown := [*({*names} - {*run.VARIANTS}), *({*models.split(",")} - {*WORKLOADS})]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; --help has those to choose from")
    asked = [
        Request(model, changes | depth, names, rounds, threads)
        for model in models.split(",")
        for changes in sizes_of(lengths, WORKLOADS[model].sizes)
    ]
    found: list[Compared] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        caches = [Path(folder) / "this", Path(folder) / "other"]
        for request in asked:
            for pair in range(pairs):
                console.print(f"measuring {request.model} {request.changes or ''}, pair {pair}")
                this, other = compare(request, trees, caches)
                [here], [there] = this.workloads, other.workloads
                both = zip(here.results, there.results, strict=True)
                found += [Compared(here.name, here.sizes, pair, *results) for results in both]
                environments = this.environment, other.environment
                lines = [asdict(one) | {"ratio": one.ratio and asdict(one.ratio)} for one in found]
                written = {"trees": [*map(str, trees)], "environments": [*map(asdict, environments)], "compared": lines}
                out.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    show(found, environments, console)
    console.print(f"wrote {out}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
elif __name__ == "worker":
    serve(Connection(int(sys.argv[-1])))
