"""Choose the example's hyperparameters: `python -m examples.movie_reviews.tune`.

Every candidate is trained on 64% of the sentences and measured on another 16%; the fifth that the example reports on
takes no part. Results go to the screen and to `out/movie_reviews_tuning.json`.
The choice costs privacy that the example's epsilon does not count, as in most published work: the sentences here are
public, and the example shows a training run, not a release.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from examples.movie_reviews.encoder import encode
from examples.movie_reviews.sentences import load_sentences, split_sentences
from examples.movie_reviews.training import Settings, train_privately

CANDIDATES = {
    "24 tokens, bias rate 0.003": Settings(num_tokens=24, head_rate=0.1, bias_rate=3e-3),
    "24 tokens, bias rate 0.01": Settings(num_tokens=24, head_rate=0.1, bias_rate=1e-2),
    "40 tokens": Settings(num_tokens=40, head_rate=0.03, bias_rate=1e-2),
}
ROOT = Path(__file__).parents[2]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Candidates; all by default.")] = None, seed: int = 0
) -> None:
    """Train the candidates of these names (all by default) and print their accuracy on the validation split."""
    record = ROOT / "out" / "movie_reviews_tuning.json"
    record.parent.mkdir(exist_ok=True)
    results = json.loads(record.read_text()) if record.exists() else {}
    split = split_sentences(load_sentences(ROOT / ".cache"), validation=True)
    for name in names or CANDIDATES:
        settings = CANDIDATES[name]
        train, validation = encode(split.train, settings.num_tokens), encode(split.test, settings.num_tokens)
        outcome = train_privately(train, validation, settings, seed=seed, num_checks=1, on_progress=_stay_silent)
        accuracy, seconds = outcome.accuracies[-1], outcome.seconds
        print(f"{name:<28} accuracy {accuracy:.4f}   {seconds:.0f} s", flush=True)
        results[f"{name}, seed {seed}"] = {**asdict(settings), "accuracy": accuracy, "seconds": seconds}
        record.write_text(json.dumps(results, indent=1))


def _stay_silent(*_: object) -> None:
    pass


if __name__ == "__main__":
    typer.run(main)
