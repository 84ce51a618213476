"""Other libraries for private training, where they can be imported; none of them is a dependency.

opacus: `pip install opacus` (1.6 was used). fastDP is not in the package index; its users clone
github.com/awslabs/fast-differential-privacy. Both are run as their users run them, in eager mode: their hooks and the
attributes that they put on parameters break a compiled graph.
"""

import importlib
from types import ModuleType
from typing import Any

import torch

from tools.bench.models import Batch
from tools.bench.variants import Kind, Task

__all__ = ["PEER_KINDS", "why_missing"]


class OpacusHooks:
    """opacus 1.x with per-sample gradients in memory: `GradSampleModule`, and the clipping of its `DPOptimizer`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        module, optimizers = _load("opacus.grad_sample"), _load("opacus.optimizers")
        self.model = module.GradSampleModule(task.model, batch_first=True, loss_reduction="sum")
        self.optimizer = _opacus_optimizer(optimizers.DPOptimizer, task)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, batch: Batch) -> None:
        self.clear()
        self.task.loss(self.model(batch.inputs), batch.targets).sum().backward()
        self.optimizer.clip_and_accumulate()
        for p in self.optimizer.params:
            # Per-sample gradients are kept until the next step unless they are dropped here, as `optimizer.step` does.
            p.grad, p.grad_sample = p.summed_grad, None


class OpacusGhost:
    """opacus 1.x with ghost clipping: norms in a first backward, weighted losses in a second."""

    def __init__(self, task: Task) -> None:
        self.task = task
        module, optimizers = _load("opacus.grad_sample"), _load("opacus.optimizers")
        self.losses = _load("opacus.utils.fast_gradient_clipping_utils").DPTensorFastGradientClipping
        self.model = module.GradSampleModuleFastGradientClipping(
            task.model,
            batch_first=True,
            loss_reduction="sum",
            max_grad_norm=task.max_grad_norm,
            use_ghost_clipping=True,
        )
        self.optimizer = _opacus_optimizer(optimizers.DPOptimizerFastGradientClipping, task)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, batch: Batch) -> None:
        self.clear()
        losses = self.task.loss(self.model(batch.inputs), batch.targets)
        self.losses(self.model, self.optimizer, losses, "sum").backward()


class FastDP:
    """fastDP's book-keeping, in its mode "MixOpt", which picks the cheaper norm for each layer.

    It draws its noise in the backward, and does so at a multiplier of 0 too.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.engine = _load("fastDP").PrivacyEngine(
            task.model,
            batch_size=1,
            sample_size=1,
            epochs=1,
            noise_multiplier=0.0,
            max_grad_norm=task.max_grad_norm,
            clipping_fn="Abadi",
            clipping_mode="MixOpt",
            loss_reduction="sum",
        )
        self.engine.attach(torch.optim.SGD(task.trained, lr=0.0))

    def clear(self) -> None:
        self.task.model.zero_grad(set_to_none=True)
        for p in self.task.model.parameters():
            vars(p).pop("private_grad", None)

    def step(self, batch: Batch) -> None:
        self.clear()
        self.task.loss(self.task.model(batch.inputs), batch.targets).sum().backward()
        for p in self.task.trained:
            p.grad = getattr(p, "private_grad", None)


def _opacus_optimizer(optimizer: Any, task: Task) -> Any:
    return optimizer(
        torch.optim.SGD(task.trained, lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=task.max_grad_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )


def _load(name: str) -> ModuleType:
    return importlib.import_module(name)


def why_missing(kind: Kind) -> str:
    """Why a kind cannot be run at all; empty if it can."""
    if not kind.library:
        return ""
    try:
        _load(kind.library)
    except Exception as error:  # noqa: BLE001  whatever stops the import of a foreign library is a reason to go without
        return f"{type(error).__name__}: {error}"
    return ""


PEER_KINDS = (
    Kind("opacus-hooks", True, "eager, per-sample gradients by hooks, then clip and sum", OpacusHooks, "opacus"),
    Kind("opacus-ghost", True, "eager, ghost clipping in two backwards", OpacusGhost, "opacus"),
    Kind("fastdp", True, "eager, book-keeping (MixOpt)", FastDP, "fastDP"),
)
