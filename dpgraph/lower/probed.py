"""The function that is captured: the user's model, with a probe beside its inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LossFunction", "run_with_probe"]

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

    The probe [B, K] ties all batch axes to one size, carries each sample's loss scale in, and its gradient slot carries
    the norms out. Its own output is there to make autograd ask for that gradient; nobody uses it.
    """
    for x, axis in zip(rows, axes, strict=True):
        torch._check(x.shape[axis] == probe.shape[0])
    outputs = model(*args, **kwargs)
    if loss_fn is not None:
        outputs = loss_fn(outputs, *targets)
    return outputs, probe * 1
