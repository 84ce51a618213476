"""The module that is captured: the user's, with a probe beside its inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LossFunction", "ProbedModule"]

LossFunction = Callable[..., Tensor]


class ProbedModule(nn.Module):
    """Runs the model, and the loss if it belongs into the graph.

    The probe [B, K] ties all batch axes to one size, carries each sample's loss scale in, and its gradient slot carries
    the norms out. Its own output is there to make autograd ask for that gradient; nobody uses it.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction | None) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(
        self,
        probe: Tensor,
        rows: tuple[Tensor, ...],
        axes: tuple[int, ...],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        targets: tuple[Any, ...],
    ) -> tuple[Any, Tensor]:
        for x, axis in zip(rows, axes, strict=True):
            torch._check(x.shape[axis] == probe.shape[0])
        outputs = self.model(*args, **kwargs)
        if self.loss_fn is not None:
            outputs = self.loss_fn(outputs, *targets)
        return outputs, probe * 1
