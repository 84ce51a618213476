"""The transformers of Hugging Face, as they are, with two layers and small widths.

Attention is whatever transformers takes by default (scaled dot-product attention). Dropout is a parameter: exactness
is tested without, since the reference would draw other masks.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.models.architecture import Architecture, Batch, classification_loss, language_model_loss

__all__ = ["TRANSFORMERS", "make_gpt2", "transformer", "words"]

VOCABULARY, POSITIONS, LABELS = 61, 7, 3
FIRST_WORD = 3  # ids below are for padding and the like


def make_gpt2(dropout: float = 0.0, vocab_size: int = VOCABULARY, width: int = 16, heads: int = 2) -> nn.Module:
    """GPT-2 with its output layer tied to the embedding."""
    config = hf.GPT2Config(
        n_layer=2,
        n_embd=width,
        n_head=heads,
        vocab_size=vocab_size,
        n_positions=16,
        resid_pdrop=dropout,
        attn_pdrop=dropout,
        embd_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return hf.GPT2LMHeadModel(config)


def _bert(dropout: float, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        **more,
    }


def _make_bert(dropout: float = 0.0) -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**_bert(dropout, max_position_embeddings=16, num_labels=3)))


def _make_roberta(dropout: float = 0.0) -> nn.Module:
    config = hf.RobertaConfig(**_bert(dropout, max_position_embeddings=16, num_labels=LABELS, pad_token_id=1))
    return hf.RobertaForSequenceClassification(config)


def _make_distilbert(dropout: float = 0.0) -> nn.Module:
    config = hf.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=24,
        max_position_embeddings=16,
        dropout=dropout,
        attention_dropout=dropout,
        seq_classif_dropout=dropout,
        num_labels=LABELS,
    )
    return hf.DistilBertForSequenceClassification(config)


def _make_llama(dropout: float = 0.0) -> nn.Module:
    """Rotary positions, RMSNorm, two query heads for one head of keys and values."""
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        attention_dropout=dropout,
        use_cache=False,
    )
    return hf.LlamaForCausalLM(config)


def _make_t5(dropout: float = 0.0) -> nn.Module:
    config = hf.T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=dropout,
        decoder_start_token_id=0,
        use_cache=False,
    )
    return hf.T5ForConditionalGeneration(config)


def _make_vit(dropout: float = 0.0) -> nn.Module:
    config = hf.ViTConfig(**_bert(dropout), image_size=8, patch_size=4, num_labels=LABELS)
    config.vocab_size = None
    return hf.ViTForImageClassification(config)


def _make_opt(dropout: float = 0.0) -> nn.Module:
    """Its head picks the last token that is no padding with `arange(B)`."""
    config = hf.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
        dropout=dropout,
        attention_dropout=dropout,
        num_labels=LABELS,
        pad_token_id=1,
        use_cache=False,
    )
    return hf.OPTForSequenceClassification(config)


def words(num_samples: int, length: int = POSITIONS) -> torch.Tensor:
    """Random ids [B, T], some of which repeat within a sample."""
    return torch.randint(FIRST_WORD, VOCABULARY // 3, (num_samples, length))


def _lengths(num_samples: int, length: int = POSITIONS) -> torch.Tensor:
    """A mask [B, T] with sentences of different lengths, the padding on the right."""
    lengths = length - torch.arange(num_samples) % 4
    return (torch.arange(length) < lengths[:, None]).long()


def _text_to_text(masked: bool) -> Callable[[int], Batch]:
    def batch(num_samples: int) -> Batch:
        ids = words(num_samples)
        if not masked:
            return Batch({"input_ids": ids}, ids)
        mask = _lengths(num_samples)
        return Batch({"input_ids": ids, "attention_mask": mask}, ids.masked_fill(mask == 0, -100))

    return batch


def _text_to_label(masked: bool) -> Callable[[int], Batch]:
    def batch(num_samples: int) -> Batch:
        inputs = {"input_ids": words(num_samples)}
        if masked:
            inputs["attention_mask"] = _lengths(num_samples)
            inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 1)
        return Batch(inputs, torch.randint(LABELS, (num_samples,)))

    return batch


def _text_to_other_text(masked: bool) -> Callable[[int], Batch]:
    def batch(num_samples: int) -> Batch:
        inputs = {"input_ids": words(num_samples), "decoder_input_ids": words(num_samples, 5)}
        if masked:
            inputs["attention_mask"] = _lengths(num_samples)
        return Batch(inputs, inputs["decoder_input_ids"])

    return batch


def _image_to_label(masked: bool) -> Callable[[int], Batch]:
    def batch(num_samples: int) -> Batch:
        return Batch({"pixel_values": torch.randn(num_samples, 3, 8, 8)}, torch.randint(LABELS, (num_samples,)))

    return batch


# name -> (make, batch, loss, has biases)
KINDS: dict[str, tuple[Callable[..., nn.Module], Callable[[bool], Callable[[int], Batch]], Any, bool]] = {
    "gpt2": (make_gpt2, _text_to_text, language_model_loss, True),
    "bert": (_make_bert, _text_to_label, classification_loss, True),
    "roberta": (_make_roberta, _text_to_label, classification_loss, True),
    "distilbert": (_make_distilbert, _text_to_label, classification_loss, True),
    "llama": (_make_llama, _text_to_text, language_model_loss, False),
    "t5": (_make_t5, _text_to_other_text, language_model_loss, False),
    "vit": (_make_vit, _image_to_label, classification_loss, True),
    "opt": (_make_opt, _text_to_label, classification_loss, True),
}


def transformer(name: str, *, masked: bool = True, dropout: float = 0.0) -> Architecture:
    """One of `KINDS`, with or without attention mask (images have none) and dropout."""
    make, batch, loss, has_biases = KINDS[name]
    return Architecture(name, lambda: make(dropout), batch(masked), loss, has_biases)


TRANSFORMERS = tuple(transformer(name) for name in KINDS)
