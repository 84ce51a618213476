"""Command line of the example: `python -m examples.movie_reviews --help`."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers.utils import logging as transformers_logging

from examples.movie_reviews.encoder import Encoded, SentenceClassifier, encode
from examples.movie_reviews.plot import draw_outcomes
from examples.movie_reviews.sentences import DownloadError, load_sentences, split_sentences
from examples.movie_reviews.training import (
    OnProgress,
    Outcome,
    Settings,
    measure_accuracy,
    train_plainly,
    train_privately,
)

ROOT = Path(__file__).parents[2]
QUICK = Settings(batch_size=128, epochs=0.25, num_tokens=24)
NUM_QUICK_TESTS = 400

console = Console()


class Backend(str, Enum):
    """How the private graph is run."""

    inductor = "inductor"
    eager = "eager"


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A short run that shows every part, not an accuracy.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, with seeds from 0.")] = 1,
    epsilon: Annotated[float, typer.Option(help="Privacy budget.")] = Settings().target_epsilon,
    baselines: Annotated[bool, typer.Option("--baselines", help="Also train without privacy, with seed 0.")] = False,
    checks: Annotated[int, typer.Option(min=1, help="How often a run measures its accuracy.")] = 5,
    backend: Annotated[Backend, typer.Option(help="How the private graph is run.")] = Backend.inductor,
    cache: Annotated[Path, typer.Option(help="Folder for the downloaded sentences.")] = ROOT / ".cache",
    picture: Annotated[Path, typer.Option(help="PNG to write.")] = ROOT / "out" / "movie_reviews.png",
) -> None:
    """Fine-tune a text encoder on movie reviews within a privacy budget."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = replace(QUICK if quick else Settings(), target_epsilon=epsilon, backend=backend.value)
    try:
        train, test = _load(cache, settings)
    except DownloadError as error:
        console.print(f"[red]{error}")
        raise typer.Exit(1) from error
    if quick:
        test = test.take(torch.arange(NUM_QUICK_TESTS))
    console.print(f"{len(train):,} sentences to train on, {len(test):,} held out, {settings.num_tokens} tokens each")
    outcomes = []
    for seed in range(seeds):
        with _progress(f"private, seed {seed}") as on_progress:
            outcomes.append(
                train_privately(train, test, settings, seed=seed, num_checks=checks, on_progress=on_progress)
            )
    plain = _train_without_privacy(train, test, settings) if baselines else None
    untrained = measure_accuracy(SentenceClassifier(), test)
    console.print(outcomes[-1].model.report)
    console.print(_table(outcomes, settings, plain, untrained))
    draw_outcomes(outcomes, picture, baseline=plain)
    console.print(f"accuracy and epsilon by step: {picture}")


def _load(cache: Path, settings: Settings) -> tuple[Encoded, Encoded]:
    split = split_sentences(load_sentences(cache), validation=False)
    return encode(split.train, settings.num_tokens), encode(split.test, settings.num_tokens)


def _train_without_privacy(train: Encoded, test: Encoded, settings: Settings) -> float:
    with _progress("without privacy") as on_progress:
        model = train_plainly(train, settings, seed=0, on_progress=on_progress)
    return measure_accuracy(model, test)


@contextmanager
def _progress(title: str) -> Iterator[OnProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[news]}"), console=console) as bar:
        task = bar.add_task(title, total=None, news="")
        yield lambda done, total, news: bar.update(task, completed=done, total=total, news=news)


def _table(outcomes: list[Outcome], settings: Settings, plain: float | None, untrained: float) -> Table:
    table = Table("training", "accuracy", "epsilon", "noise multiplier", "seconds", title="held-out sentences")
    for seed, outcome in enumerate(outcomes):
        spent, sigma = f"{outcome.epsilons[-1]:.3f}", f"{outcome.noise_multiplier:.3f}"
        row = (f"DP-BiTFiT, seed {seed}", f"{outcome.accuracies[-1]:.2%}", spent, sigma, f"{outcome.seconds:.0f}")
        table.add_row(*row)
    if len(outcomes) > 1:
        table.add_row(f"mean of {len(outcomes)}", f"{statistics.mean(o.accuracies[-1] for o in outcomes):.2%}")
    if plain is not None:
        table.add_row("BiTFiT without privacy", f"{plain:.2%}", "infinite")
    table.add_row("untrained head", f"{untrained:.2%}", "0")
    table.caption = f"delta = {settings.delta:g}; a sentence is added or removed"
    return table


if __name__ == "__main__":
    typer.run(main)
