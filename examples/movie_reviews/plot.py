"""Accuracy and epsilon by step, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from examples.movie_reviews.training import Outcome

__all__ = ["draw_outcomes"]


def draw_outcomes(outcomes: Sequence[Outcome], path: Path, *, baseline: float | None = None) -> None:
    """Draw every seed's accuracy, and the epsilon that they share, into a PNG.

    Args:
        outcomes: at least one run, all with the same settings.
        path: the file to write; its folder is made.
        baseline: an accuracy to draw as a level, of the training without privacy.
    """
    matplotlib.use("Agg")
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, outcome in enumerate(outcomes):
        label = "accuracy" if number == 0 else None
        left.plot(outcome.steps, outcome.accuracies, marker="o", color="tab:blue", alpha=0.8, label=label)
    if baseline is not None:
        left.axhline(baseline, linestyle=":", color="tab:gray", label="accuracy without privacy")
    left.axhline(0.5, linestyle="--", linewidth=0.8, color="tab:gray", label="majority class")
    left.set(xlabel="step", ylabel="accuracy on held-out sentences", ylim=(0.4, 1.0), xlim=(0, None))
    right = left.twinx()
    right.plot(outcomes[0].steps, outcomes[0].epsilons, color="tab:red", marker=".", label="epsilon")
    right.set(ylabel="epsilon spent", ylim=(0, None))
    left.set_title("DP-BiTFiT of all-MiniLM-L6-v2 on movie reviews")
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    left.legend(handles=handles, loc="lower right", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
