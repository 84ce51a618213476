"""The models that are timed: randomly initialised, without dropout, one tensor in and one loss a sample out.

The libraries that compute per-sample gradients by hooks on modules cannot take a tied weight, nor a layer whose input
all samples share (positions [1, T]), nor in all their layers a gradient that is not contiguous. Models named "-peers"
tie nothing, give each sample its own positions, and have a loss over [B * T, V]; all variants of a run then train that
same model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tools.bench.resnet import ResNet50

__all__ = ["WORKLOADS", "Batch", "Loss", "Sizes", "WithLoss", "Workload"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> losses [B]."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model and its batch.

    Attributes:
        batch: B, samples of a batch.
        length: T, tokens of a text; pixels of an image's side.
        layers: blocks of a transformer; 50 for a ResNet.
        width: features of a token; channels of a ResNet's first stage.
        heads: of attention; groups of a GroupNorm.
        classes: V, the vocabulary; of images, the labels.
    """

    batch: int
    length: int
    layers: int
    width: int
    heads: int
    classes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples [B, ...] and what is to be predicted of them [B, ...]."""

    inputs: Tensor
    targets: Tensor

    def sample(self, b: int) -> "Batch":
        """Sample b alone, as a batch of one."""
        return Batch(self.inputs[b : b + 1], self.targets[b : b + 1])

    def copy(self) -> "Batch":
        """The same samples in tensors of their own."""
        return Batch(self.inputs.clone(), self.targets.clone())

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The same elsewhere; whole numbers keep their dtype."""
        inputs = self.inputs.to(dtype) if self.inputs.is_floating_point() else self.inputs
        return Batch(inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True)
class Workload:
    """A model with its data and its loss.

    Attributes:
        name: what the command line calls it.
        sizes: of the model and the batch that is timed.
        make: the model, with weights drawn anew.
        draw: that many random samples.
        loss: the loss of each sample.
    """

    name: str
    sizes: Sizes
    make: Callable[[Sizes], nn.Module]
    draw: Callable[[Sizes, int], Batch]
    loss: Loss

    def resized(self, **changes: int) -> "Workload":
        """The same at other sizes."""
        return replace(self, sizes=replace(self.sizes, **changes))


class WithLoss(nn.Module):
    """A model that returns its samples' losses."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Losses [B]."""
        return self.loss(self.model(inputs), targets)


class Logits(nn.Module):
    """A model of transformers that returns its logits alone.

    Attributes:
        own_positions: whether each sample is given its positions [B, T], in place of [1, T] for all.
    """

    def __init__(self, inner: nn.Module, argument: str, own_positions: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.argument = argument
        self.own_positions = own_positions

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [B, T, V] or [B, C] of tokens [B, T] or images [B, 3, H, W]."""
        more: dict[str, Tensor] = {}
        if self.own_positions:
            more["position_ids"] = torch.arange(inputs.shape[1], device=inputs.device).repeat(len(inputs), 1)
        logits: Tensor = self.inner(**{self.argument: inputs}, **more).logits
        return logits


def _gpt2(sizes: Sizes, peers: bool = False) -> nn.Module:
    config = hf.GPT2Config(
        n_layer=sizes.layers,
        n_embd=sizes.width,
        n_head=sizes.heads,
        n_positions=sizes.length,
        vocab_size=sizes.classes,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        tie_word_embeddings=not peers,
    )
    return Logits(hf.GPT2LMHeadModel(config), "input_ids", own_positions=peers)


def _gpt2_peers(sizes: Sizes) -> nn.Module:
    return _gpt2(sizes, peers=True)


def _encoder(sizes: Sizes) -> dict[str, Any]:
    return {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": 4 * sizes.width,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _bert(sizes: Sizes, peers: bool = False) -> nn.Module:
    config = hf.BertConfig(
        **_encoder(sizes),
        vocab_size=sizes.classes,
        max_position_embeddings=sizes.length,
        tie_word_embeddings=not peers,
    )
    return Logits(hf.BertForMaskedLM(config), "input_ids", own_positions=peers)


def _bert_peers(sizes: Sizes) -> nn.Module:
    return _bert(sizes, peers=True)


def _vit(sizes: Sizes) -> nn.Module:
    """Patches of 16 pixels: 224 pixels give T = 197 positions."""
    config = hf.ViTConfig(**_encoder(sizes), image_size=sizes.length, patch_size=16)
    config.num_labels = sizes.classes
    return Logits(hf.ViTForImageClassification(config), "pixel_values")


def _llama(sizes: Sizes) -> nn.Module:
    """Rotary positions, RMSNorm, gated MLP, half as many heads of keys and values as of queries."""
    config = hf.LlamaConfig(
        vocab_size=sizes.classes,
        hidden_size=sizes.width,
        intermediate_size=8 * sizes.width // 3,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=max(1, sizes.heads // 2),
        max_position_embeddings=sizes.length,
        attention_dropout=0.0,
        use_cache=False,
    )
    return Logits(hf.LlamaForCausalLM(config), "input_ids")


def _resnet(sizes: Sizes) -> nn.Module:
    if sizes.layers != 50:
        raise ValueError(f"a ResNet-50 has 50 layers, not {sizes.layers}")
    return ResNet50(sizes.width, sizes.heads, sizes.classes)


def _texts(sizes: Sizes, num_samples: int) -> Batch:
    """Without id 0, which is padding to some models: opacus gives its row of the table a gradient all the same."""
    tokens = torch.randint(1, sizes.classes, (num_samples, sizes.length))
    return Batch(tokens, tokens)


def _images(sizes: Sizes, num_samples: int) -> Batch:
    return Batch(torch.randn(num_samples, 3, sizes.length, sizes.length), torch.randint(sizes.classes, (num_samples,)))


def _next_token(logits: Tensor, tokens: Tensor) -> Tensor:
    """Losses [B] of logits [B, T, V] as predictions of the next token."""
    return cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").sum(1)


def _same_token(logits: Tensor, tokens: Tensor) -> Tensor:
    """Losses [B] of logits [B, T, V] as predictions of the token at the same place."""
    return cross_entropy(logits.transpose(1, 2), tokens, reduction="none").sum(1)


def _next_token_flat(logits: Tensor, tokens: Tensor) -> Tensor:
    """As `_next_token`; the gradient of the logits is contiguous."""
    return _flat(logits[:, :-1], tokens[:, 1:])


def _same_token_flat(logits: Tensor, tokens: Tensor) -> Tensor:
    """As `_same_token`; the gradient of the logits is contiguous."""
    return _flat(logits, tokens)


def _flat(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape).sum(1)


def _label(logits: Tensor, labels: Tensor) -> Tensor:
    """Losses [B] of logits [B, C]."""
    return cross_entropy(logits, labels, reduction="none")


_DECODER = Sizes(batch=8, length=128, layers=4, width=384, heads=6, classes=5000)
_GPT2 = Workload("gpt2-t128", _DECODER, _gpt2, _texts, _next_token)
_GPT2_PEERS = Workload("gpt2-t128-peers", _DECODER, _gpt2_peers, _texts, _next_token_flat)

WORKLOADS = {
    workload.name: workload
    for workload in (
        replace(_GPT2, name="gpt2-t32").resized(length=32),
        _GPT2,
        replace(_GPT2, name="gpt2-t512").resized(length=512),
        replace(_GPT2, name="gpt2-12-layers").resized(layers=12),
        replace(_GPT2_PEERS, name="gpt2-t32-peers").resized(length=32),
        _GPT2_PEERS,
        replace(_GPT2_PEERS, name="gpt2-t512-peers").resized(length=512),
        Workload("bert", _DECODER, _bert, _texts, _same_token),
        Workload("bert-peers", _DECODER, _bert_peers, _texts, _same_token_flat),
        Workload("vit", Sizes(8, 224, 4, 384, 6, 100), _vit, _images, _label),
        Workload("resnet50-gn", Sizes(8, 64, 50, 64, 32, 100), _resnet, _images, _label),
        Workload("llama", _DECODER, _llama, _texts, _next_token),
    )
}
