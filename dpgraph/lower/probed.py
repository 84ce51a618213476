"""The function that is captured: the user's model, with a probe beside its inputs and perhaps a loss behind it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.capture.batch import BatchedCall
from dpgraph.errors import ArgumentError
from dpgraph.mechanism import Mechanism
from dpgraph.torch_compat import begin_capture

__all__ = ["LossFunction", "check_losses", "check_targets", "make_probe", "run_with_probe"]

LossFunction = Callable[..., Tensor]


def run_with_probe(
    model: nn.Module,
    loss_fn: LossFunction | None,
    probe: Tensor,
    rows: tuple[Tensor, ...],
    axes: tuple[int, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    targets: tuple[Any, ...],
) -> tuple[Any, Tensor]:
    """What the model returns, or the loss if it belongs into the graph, and the probe.

    The probe [B, 2, K] ties all batch axes to one size, carries loss scales and bounds in, and its gradient slot
    carries the norms out. Its own output is there to make autograd ask for that gradient; nobody uses it.
    """
    begin_capture()
    for x, axis in zip(rows, axes, strict=True):
        torch._check(x.shape[axis] == probe.shape[0])
    outputs = model(*args, **kwargs)
    if loss_fn is not None:
        outputs = loss_fn(outputs, *targets)
    return outputs, probe * 1


def make_probe(call: BatchedCall, mechanism: Mechanism, like: Tensor) -> Tensor:
    """Loss scales and bounds [B, 2, K]: 1, or B to undo a mean, and 0 for rows of padding; R of each group.

    Its gradient has as many numbers: the norms, and the shares of their squares that rounding may have taken.

    Args:
        call: to which it belongs.
        mechanism: K groups, of a sum or a mean.
        like: a trained parameter, for device and precision.
    """
    scale = float(call.num_samples) if mechanism.loss_reduction == "mean" else 1.0
    dtype = torch.promote_types(like.dtype, torch.float32)
    probe = torch.zeros(call.num_rows, 2, mechanism.num_groups, dtype=dtype, device=like.device)
    probe[: call.num_samples, 0], probe[:, 1] = scale, mechanism.max_group_norm
    return probe.requires_grad_()


def check_targets(loss_fn: LossFunction, targets: tuple[Any, ...]) -> None:
    """Pass if `loss_fn(outputs, *targets)` is a call it can take.

    Raises:
        ArgumentError: it is not.
    """
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
            fix="pass what loss_fn takes besides the outputs as a tuple: model(x, targets=(y,)); for the model's own "
            "outputs, to evaluate, call module.original_module(x)",
        ) from None


def check_losses(losses: Any, num_rows: int) -> None:
    """Pass if there is one loss a sample, padding included.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(losses, Tensor) and losses.shape == (num_rows,):
        return
    found = f"a tensor of shape {list(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    raise ArgumentError(
        f"loss_fn returned {found} for a batch of {num_rows} samples",
        why="a loss for each sample is what shows that no sample's loss depends on another one",
        fix='return a tensor [B]: take reduction="none", and sum over positions and features, never over the batch',
    )
