"""Losses of one number a sample, to put inside the graph: `dp_compile(model, loss_fn=losses.cross_entropy)`.

Each takes what the model returned (a tensor, or an output object of transformers with `logits`) and the targets, and
returns [B]. Nothing in them depends on another sample: a mean goes over one sample's own positions, never over all
tokens of the batch, since there one sample's length would scale all the others' gradients.

Options are set with `functools.partial(losses.token_cross_entropy, shift=True)`.
"""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from dpgraph.errors import ArgumentError

__all__ = ["binary_cross_entropy", "cross_entropy", "mean_squared_error", "token_cross_entropy"]

Reduction = Literal["mean", "sum"]


def cross_entropy(outputs: Any, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of one class a sample.

    Args:
        outputs: logits [B, C].
        labels: classes [B], integers; or probabilities [B, C].
        label_smoothing: share of the target that is spread over all classes, in [0, 1].

    Returns:
        [B].

    >>> import torch
    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    logits = _logits(outputs)
    _require_rank("cross_entropy", logits, 2)
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def binary_cross_entropy(outputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy of independent yes-or-no labels, averaged over those of a sample.

    Args:
        outputs: logits [B] or [B, ...].
        labels: of the same shape, in [0, 1].

    Returns:
        [B].
    """
    logits = _logits(outputs)
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def token_cross_entropy(
    outputs: Any, labels: Tensor, *, ignore_index: int = -100, shift: bool = False, reduction: Reduction = "mean"
) -> Tensor:
    """Cross entropy of one class a token.

    Args:
        outputs: logits [B, T, V].
        labels: classes [B, T]; positions with `ignore_index` count for nothing.
        ignore_index: what marks positions without a label.
        shift: whether position t predicts the label of position t + 1 (a causal language model with
            `labels=input_ids`).
        reduction: "mean" over the labelled positions of each sample, or their "sum". Either is sound: the divisor
            is the sample's own count. A sample without a label has loss 0.

    Returns:
        [B].

    Raises:
        ArgumentError: an unknown reduction, or logits that are not [B, T, V].

    >>> import torch
    >>> token_cross_entropy(torch.zeros(1, 3, 4), torch.tensor([[0, 2, -100]]))
    tensor([1.3863])
    """
    if reduction not in ("mean", "sum"):
        raise ArgumentError(
            f"reduction is {reduction!r}",
            why="a sample's loss has to be one number that depends on that sample alone",
            fix="choose 'mean' or 'sum', over the positions of each sample",
        )
    logits = _logits(outputs)
    _require_rank("token_cross_entropy", logits, 3)
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=ignore_index)
    total = losses.sum(1)
    return total if reduction == "sum" else total / (labels != ignore_index).sum(1).clamp_min(1)


def mean_squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """Squared error, averaged over the numbers of each sample.

    Args:
        outputs: [B] or [B, ...].
        targets: of the same number of elements; [B, 1] and [B] are taken for one another.

    Returns:
        [B].
    """
    values = _logits(outputs)
    squared = (values - targets.to(values.dtype).reshape(values.shape)).square()
    return squared.flatten(1).mean(1) if squared.ndim > 1 else squared


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise ArgumentError(
        f"the model returned a {type(outputs).__name__} without logits",
        why="the loss has to know which output it is of",
        fix="wrap the loss: loss_fn=lambda outputs, labels: losses.cross_entropy(outputs[0], labels)",
    )


def _require_rank(name: str, logits: Tensor, rank: int) -> None:
    if logits.ndim != rank:
        raise ArgumentError(
            f"{name} got logits of shape {list(logits.shape)}",
            why="it could not tell the samples from their positions",
            fix="pass logits [B, C] to cross_entropy and logits [B, T, V] to token_cross_entropy",
        )
