"""What a test needs to know of a model: how to build it, what to feed it, and the loss of each sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Architecture", "Batch", "classification_loss", "language_model_loss"]

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Arguments of a call, batch first, and the labels."""

    inputs: Mapping[str, Tensor]
    labels: Tensor

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    def sample(self, b: int) -> "Batch":
        """Sample b alone, as a batch of one."""
        return Batch({name: x[b : b + 1] for name, x in self.inputs.items()}, self.labels[b : b + 1])

    def to(self, dtype: torch.dtype) -> "Batch":
        """Floating inputs in another dtype."""
        cast = {name: x.to(dtype) if x.dtype.is_floating_point else x for name, x in self.inputs.items()}
        return Batch(cast, self.labels)


@dataclass(frozen=True)
class Architecture:
    """A model to test with.

    Attributes:
        name: what the test is called.
        make: builds it with random weights.
        batch: makes a batch of a given number of samples.
        loss: per-sample losses [B] from the outputs and the labels.
        has_biases: whether "bitfit" trains something without `add_biases`.
    """

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    loss: Loss
    has_biases: bool = True

    def build(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The model in train mode; the same values at every call, and rounded to float32 in every dtype.

        Weights are moved away from their initial values: zero biases and unit scales would hide errors.
        """
        torch.manual_seed(1)
        model = self.make()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
        return model.to(dtype).train()

    def losses(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Per-sample losses [B]."""
        return self.loss(model(**batch.inputs), batch.labels)

    def __str__(self) -> str:
        return self.name


def classification_loss(outputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy of one label a sample, [B]."""
    logits = outputs if isinstance(outputs, Tensor) else outputs.logits
    return F.cross_entropy(logits, labels, reduction="none")


def language_model_loss(outputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy of each next token, summed over the positions; labels [B, T] with -100 for padding, to [B]."""
    logits = outputs.logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    return losses.sum(1)
