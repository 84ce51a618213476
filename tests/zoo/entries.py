"""How an entry of the zoo is made: settings of a class of transformers, a batch, and a loss that needs no labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tests.models.architecture import Architecture, Batch

VOCABULARY, LENGTH, CLASSES = 61, 6, 3
Settings = dict[str, Any]

# One layer where all layers are alike: a second would cost as much to compile and show nothing new.
TEXT: Settings = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.0,
    "pad_token_id": 1,
    "num_labels": CLASSES,
}
BOTH: Settings = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
    "use_cache": False,
}


@dataclass(frozen=True)
class Refusal:
    """An architecture that is refused, as it has to be.

    Attributes:
        architecture: the model.
        said: words of what dpgraph says.
        reason: what the model does, for the table.
    """

    architecture: Architecture
    said: str
    reason: str

    def __str__(self) -> str:
        return self.architecture.name


def squares(outputs: Any, _: Tensor) -> Tensor:
    """A loss [B] that uses every number of the first output in its own way."""
    y = (outputs.logits if hasattr(outputs, "logits") else outputs[0]).flatten(1)
    return (torch.linspace(0.5, 1.5, y.shape[1], dtype=y.dtype) * (y + 0.3).square()).sum(1)


def entry(
    name: str,
    settings: Settings,
    batch: Callable[[int], Batch],
    *,
    prepare: Callable[[nn.Module], None] | None = None,
    title: str | None = None,
) -> Architecture:
    """A class of transformers with its settings.

    Args:
        name: of the class.
        settings: arguments of its configuration.
        batch: makes a batch of a given number of samples.
        prepare: is given the new model.
        title: what the entry is called, if not after the class.
    """

    def make() -> nn.Module:
        model_class = getattr(hf, name)
        model = model_class(model_class.config_class(**settings))
        if prepare is not None:
            prepare(model)
        return model

    return Architecture(title or name, make, batch, squares)


def batch_of(**inputs: Callable[[int], Tensor]) -> Callable[[int], Batch]:
    """A maker of batches from makers of inputs; the loss needs no labels."""
    return lambda n: Batch({name: make(n) for name, make in inputs.items()}, torch.zeros(n))


def ids(num_samples: int, length: int = LENGTH) -> Tensor:
    """Tokens that are none of the special ones."""
    return torch.randint(3, VOCABULARY, (num_samples, length))


def mask(num_samples: int) -> Tensor:
    """Samples of three lengths."""
    return (torch.arange(LENGTH) < (LENGTH - torch.arange(num_samples) % 3)[:, None]).long()


def randn(*shape: int) -> Callable[[int], Tensor]:
    """A maker of normal numbers of this shape for each sample."""
    return lambda n: torch.randn(n, *shape)
