"""Checks of a loss that is inside the graph: that it can be called, and gives one number a sample."""

import inspect
from typing import Any

from torch import Tensor, nn

from dpgraph.capture.batch import BatchedCall
from dpgraph.errors import ArgumentError
from dpgraph.lower.probed import LossFunction

__all__ = ["check_losses", "check_targets"]


def check_targets(loss_fn: LossFunction, targets: tuple[Any, ...]) -> None:
    """That `loss_fn(outputs, *targets)` is a call it can take."""
    try:
        signature = inspect.signature(loss_fn.forward if isinstance(loss_fn, nn.Module) else loss_fn)
    except (TypeError, ValueError):  # a builtin that tells nothing of its arguments
        return
    try:
        signature.bind(None, *targets)
    except TypeError as error:
        raise ArgumentError(
            f"loss_fn cannot be called with the outputs and {len(targets)} targets: {error}",
            why="the loss is part of the graph that is shown to keep the samples apart",
            fix="pass what loss_fn takes besides the outputs as a tuple: model(x, targets=(y,))",
        ) from None


def check_losses(losses: Any, call: BatchedCall) -> None:
    """One loss a sample."""
    if isinstance(losses, Tensor) and losses.shape == (call.num_rows,):
        return
    found = f"a tensor of shape {list(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    raise ArgumentError(
        f"loss_fn returned {found} for a batch of {call.num_rows} samples",
        why="a loss for each sample is what shows that no sample's loss depends on another one",
        fix='return a tensor [B]: take reduction="none", and sum over positions and features, never over the batch',
    )
