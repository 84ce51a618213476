"""A training step of this tree's dpgraph against that of another checkout: `python -m tools.bench.against OTHER_TREE`.

    git worktree add /tmp/before HEAD~1
    python -m tools.bench.against /tmp/before                                 gpt2-t128, dp-full and plain-full
    python -m tools.bench.against /tmp/before --models gpt2-t128 --lengths 32:16,128,512 --rounds 15
    python -m tools.bench.against .                                           what a ratio says of no change at all

Each tree has a process of its own, with Inductor's caches of its own, in which the bench of that tree makes the model,
checks the gradients and takes the steps; this file alone is run in both. One of them works at a time: this, other,
other, this. Ordinary training, "plain-full", has nothing of dpgraph, and its ratio is what the machine is good for.
Two processes that run the same can differ by more than their quartiles; --pairs takes new ones. Writes a JSON.
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
WORKER = "worker"
START = f"import runpy, sys; runpy.run_path(sys.argv[1], run_name={WORKER!r})"
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Request:
    """What both processes are asked for, in plain words: the classes of the two trees may differ.

    Attributes:
        changes: sizes in place of the model's own.
        rounds: that count.
    """

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


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that takes steps with the dpgraph of a tree, and its end of a pipe."""

    tree: Path
    channel: Connection

    def hear(self) -> list[str] | str:
        """Its next message: the variants that may take steps, or a record, which is its last."""
        try:
            message: list[str] | str = self.channel.recv()
        except EOFError as error:
            raise RuntimeError(f"the process of {self.tree} ended without a result; its own error is above") from error
        return message


@contextmanager
def working(tree: Path, cache: Path) -> Iterator[Worker]:
    """Start a process that imports from a tree, and writes nothing into it."""
    ours, theirs = Pipe()
    path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", START, str(Path(__file__).resolve()), str(theirs.fileno())]
    with subprocess.Popen(command, cwd=tree, env={**os.environ, **own}, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield Worker(tree, ours)
        except BaseException:
            process.terminate()
            raise
        finally:
            ours.close()


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
    environment = Environment.current(CPU, settings.dtype, request.threads)
    channel.send(Record(environment, request.rounds, 1, 0, (found,)).to_json())


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
            worker.channel.send(asdict(request))
        heard = [worker.hear() for worker in workers]
        ready = [name for name in request.variants if all(isinstance(found, list) and name in found for found in heard)]
        for turn in range(measure.WARM_UP_ROUNDS + request.rounds):
            for name in ready:
                for worker in workers if turn % 2 == 0 else reversed(workers):
                    worker.channel.send(name)
                    worker.hear()
        for number, worker in enumerate(workers):
            if isinstance(heard[number], list):
                worker.channel.send("")
                heard[number] = worker.hear()
    return [Record.from_json(str(text)) for text in heard]


def show(found: Sequence[Compared], environments: Sequence[Environment], console: Console) -> None:
    """Print a table of medians and ratios, a line a variant and pair of processes, and what was not timed."""
    this, other = environments
    console.print(f"{this.device}, {this.threads} threads, commit {this.commit or '?'} against {other.commit or '?'}")
    table = Table(title="seconds of a step: this tree against the other")
    for column in ("model", "variant", "T", "B", "pair", "this ms", "other ms", "this / other", "quartiles"):
        table.add_column(column, justify="left" if column in ("model", "variant") else "right", no_wrap=True)
    for one in found:
        name, length, results = one.this.variant, one.sizes.length, {"this": one.this, "other": one.other}
        for tree, result in results.items():
            if result.status is not Status.timed:
                reason = f"{result.status.value}: {result.reason}"
                console.print(f"{one.model}, T={length}, {name}, {tree} tree: {reason}", markup=False)
        if times := one.ratio:
            numbers = map(str, (length, one.sizes.batch, one.pair))
            medians = (f"{1e3 * result.quartiles[1]:.1f}" for result in results.values())
            spread = f"{times.low:.3f} to {times.high:.3f}"
            table.add_row(one.model, name, *numbers, *medians, f"{times.median:.3f}", spread)
    console.print(table)


def sizes_of(lengths: str, own: Sizes) -> list[dict[str, int]]:
    """The changes for each of "T" or "T:B"; without B there are as many samples as keep the batch's B * T, but two.

    >>> own = Sizes(batch=8, length=128, layers=4, width=384, heads=6, classes=5000)
    >>> sizes_of("32:16,512", own)
    [{'length': 32, 'batch': 16}, {'length': 512, 'batch': 2}]
    """
    pairs = [text.partition(":") for text in lengths.split(",") if text]
    kept = own.batch * own.length
    return [{"length": int(T), "batch": int(B) if B else max(2, kept // int(T))} for T, _, B in pairs] or [{}]


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
    console = Console(width=max(Console().width, 140), highlight=False)
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
    with tempfile.TemporaryDirectory() as folder:
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
elif __name__ == WORKER:
    serve(Connection(int(sys.argv[-1])))
