"""The ways to train that need torch and dpgraph alone; those of other libraries are in `peers.py`.

A step is: clear what the last one left, forward, losses of the samples, backward. There is no noise and no optimizer
step, which would be the same for all. A private step leaves the sum of the clipped per-sample gradients in `p.grad`,
clipped by min(1, R / n) (Abadi et al. 2016, arXiv:1607.00133), the one function that every peer has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import dpgraph
from tools.bench.models import Batch, Loss, WithLoss

__all__ = ["MODES", "OWN_KINDS", "Kind", "Mode", "Task", "Trainer", "train_only", "trained_names"]

Mode = Literal["full", "bitfit"]
MODES: tuple[Mode, ...] = ("full", "bitfit")


@dataclass(frozen=True, slots=True)
class Task:
    """What a way to train is given: a model of its own, in which what is not trained requires no grad.

    Attributes:
        model: the model, whose parameters receive the gradients.
        loss: the loss of each sample.
        mode: which parameters are trained.
        max_grad_norm: R.
    """

    model: nn.Module
    loss: Loss
    mode: Mode
    max_grad_norm: float

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]


class Trainer(Protocol):
    """Takes steps of training."""

    def clear(self) -> None:
        """Drop what the last step left: gradients, and whatever else a library keeps."""

    def step(self, batch: Batch) -> None:
        """Clear, forward, backward; the result is in `p.grad`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to train.

    Attributes:
        name: a variant is called by this and its mode.
        private: whether it clips.
        ran_as: how it is run, for the record.
        make: sets it up.
        library: the module that it cannot do without; empty if it needs torch and dpgraph alone.
    """

    name: str
    private: bool
    ran_as: str
    make: Callable[[Task], Trainer]
    library: str = ""


def trained_names(model: nn.Module, mode: Mode) -> list[str]:
    """Names of the parameters that a mode trains."""
    return [name for name, _ in model.named_parameters() if mode == "full" or name.endswith("bias")]


def train_only(model: nn.Module, mode: Mode) -> None:
    """Let those parameters require grad that a mode trains, and no others."""
    names = set(trained_names(model, mode))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


class _Trainer:
    """Keeps the task, and clears gradients."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def clear(self) -> None:
        self.task.model.zero_grad(set_to_none=True)


class Eager(_Trainer):
    """Ordinary training, op by op."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.losses: Callable[[Tensor, Tensor], Tensor] = WithLoss(task.model, task.loss)

    def step(self, batch: Batch) -> None:
        self.clear()
        self.losses(batch.inputs, batch.targets).sum().backward()


class Compiled(Eager):
    """Ordinary training, compiled with the loss, with torch's own defaults for fixed sizes."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.losses = torch.compile(WithLoss(task.model, task.loss), fullgraph=True, dynamic=False)


class CompiledForAnySize(Eager):
    """The same, with a batch size that may vary, as it does under Poisson sampling."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.losses = torch.compile(WithLoss(task.model, task.loss), fullgraph=True)

    def step(self, batch: Batch) -> None:
        marked = Batch(batch.inputs.detach(), batch.targets.detach())  # marks are attributes, and others run the batch
        torch._dynamo.mark_dynamic(marked.inputs, 0)
        torch._dynamo.mark_dynamic(marked.targets, 0)
        super().step(marked)


class Loop(_Trainer):
    """A backward for each sample."""

    def step(self, batch: Batch) -> None:
        self.clear()
        parameters = self.task.trained
        for b in range(len(batch.inputs)):
            alone = batch.sample(b)
            loss = self.task.loss(self.task.model(alone.inputs), alone.targets).sum()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
            factor = _clip_factors(nn.utils.get_total_norm(gradients), self.task.max_grad_norm)
            for p, g in zip(parameters, gradients, strict=True):
                clipped = g * factor  # not in place: two parameters can be given the same tensor
                p.grad = clipped if p.grad is None else p.grad.add_(clipped)


class Vmap(_Trainer):
    """`vmap(grad)`: the per-sample gradients of the whole model at once."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.clipped_sums: Callable[..., dict[str, Tensor]] = self._clipped_sums
        self.per_sample = vmap(grad(self._loss), in_dims=(None, None, 0, 0))

    def step(self, batch: Batch) -> None:
        self.clear()
        named = dict(self.task.model.named_parameters())
        trained = {name: p.detach() for name, p in named.items() if p.requires_grad}
        frozen = {name: p.detach() for name, p in named.items() if not p.requires_grad}
        for name, g in self.clipped_sums(trained, frozen, batch.inputs, batch.targets).items():
            named[name].grad = g

    def _clipped_sums(
        self, trained: dict[str, Tensor], frozen: dict[str, Tensor], inputs: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        gradients = self.per_sample(trained, frozen, inputs, targets)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = _clip_factors(norms, self.task.max_grad_norm)
        return {name: torch.tensordot(factors, g, dims=1) for name, g in gradients.items()}

    def _loss(self, trained: dict[str, Tensor], frozen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        outputs = functional_call(self.task.model, {**trained, **frozen}, (x.unsqueeze(0),))
        return self.task.loss(outputs, y.unsqueeze(0)).sum()


class CompiledVmap(Vmap):
    """`vmap(grad)` and the clipping in one compiled graph."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.clipped_sums = torch.compile(self._clipped_sums, fullgraph=True, dynamic=False)


class DPGraph(_Trainer):
    """dpgraph through Inductor, for batches of any size."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.private = dpgraph.dp_compile(
            task.model, task.mode, clipping="abadi", max_grad_norm=task.max_grad_norm, loss_fn=task.loss
        )

    def step(self, batch: Batch) -> None:
        self.clear()
        self.private(batch.inputs, targets=(batch.targets,)).sum().backward()


def _clip_factors(norms: Tensor, max_grad_norm: float) -> Tensor:
    return (max_grad_norm / norms).clamp(max=1.0)


OWN_KINDS = (
    Kind("plain", False, "torch.compile(fullgraph=True, dynamic=False), loss inside", Compiled),
    Kind("plain-any-size", False, "torch.compile(fullgraph=True), any batch size, loss inside", CompiledForAnySize),
    Kind("eager", False, "eager", Eager),
    Kind("dp", True, "dpgraph, Inductor, any batch size, loss inside", DPGraph),
    Kind("loop", True, "eager, one backward a sample", Loop),
    Kind("vmap", True, "eager; on CPU torch has no rule for attention and maps it sample by sample", Vmap),
    Kind("vmap-compiled", True, "torch.compile(fullgraph=True, dynamic=False)", CompiledVmap),
)
