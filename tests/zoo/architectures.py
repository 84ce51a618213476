"""Small configurations of the models of transformers, by family; weights are random, dropout is off.

An entry is what differs from the family's settings. Names are those of transformers' classes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tests.models.architecture import Architecture, Batch
from tests.models.own import OWN

__all__ = ["NIGHTLY", "REFUSED", "ZOO"]

VOCABULARY, LENGTH, CLASSES = 61, 6, 3
Settings = dict[str, Any]

TEXT: Settings = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.0,
    "pad_token_id": 1,
    "num_labels": CLASSES,
}
ENCODERS: Mapping[str, Settings] = {
    "Bert": {},
    "Roberta": {},
    "XLMRobertaXL": {},
    "Electra": {"embedding_size": 16},
    "RobertaPreLayerNorm": {},
    "MPNet": {},
    "ConvBert": {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1},
    "Ernie": {},
    "LayoutLM": {},
    "BigBird": {"attention_type": "original_full"},
    "RoFormer": {},
    "DebertaV2": {},
    "Deberta": {},
    "SqueezeBert": {"embedding_size": 16},
    "MobileBert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "Albert": {"embedding_size": 8},
    "ModernBert": {
        "embedding_dropout": 0.0,
        "attention_dropout": 0.0,
        "mlp_dropout": 0.0,
        "local_attention": 4,
        "cls_token_id": 0,
        "sep_token_id": 2,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "Esm": {"mask_token_id": 4},
    "FNet": {},
    "Funnel": {
        "block_sizes": [1, 1],
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    },
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "dropout": 0.0, "summary_last_dropout": 0.0},
    "XLM": {
        "emb_dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "summary_first_dropout": 0.0,
        "pad_index": 1,
    },
}
# What these configurations refuse to be told.
WITHOUT = {"XLNet": ("max_position_embeddings",), "Funnel": ("num_hidden_layers",)}
CAUSAL: Settings = {
    **TEXT,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "use_cache": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
GPT: Settings = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
DECODERS: Mapping[str, Settings] = {
    "Llama": {},
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 4},
    "Gemma": {"head_dim": 4},
    "Gemma2": {"head_dim": 4, "sliding_window": 4},
    "Phi": {"partial_rotary_factor": 0.5},
    "Phi3": {},
    "StableLm": {},
    "Starcoder2": {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    "Cohere": {},
    "Olmo2": {},
    "Glm": {"head_dim": 4},
    "GPTNeoX": {},
    "Persimmon": {},
    "Nemotron": {},
    "Bloom": {"n_layer": 2, "n_head": 2},
    "Falcon": {},
    "Mpt": {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32, "expansion_ratio": 2},
    "GPTBigCode": GPT,
    "CodeGen": {**GPT, "rotary_dim": 4},
    "GPTJ": {**GPT, "rotary_dim": 4},
    "GPTNeo": {
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "resid_dropout": 0.0,
        "embed_dropout": 0.0,
    },
    "OPT": {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0},
    "BioGpt": {"activation_dropout": 0.0, "layerdrop": 0.0},
    "Mamba": {"state_size": 4},
    "Rwkv": {"attention_hidden_size": 16},
}
HEADS = {"OpenAIGPTLMHeadModel": GPT, "GPT2LMHeadModel": GPT}
BOTH: Settings = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
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
T5: Settings = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "use_cache": False,
    "local_radius": 4,
}
PATCHES: Settings = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "num_labels": CLASSES,
}
PYRAMID: Settings = {
    "image_size": 32,
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "num_labels": CLASSES,
}
WINDOWS: Settings = {
    **{k: v for k, v in PATCHES.items() if k not in ("num_hidden_layers", "num_attention_heads", "intermediate_size")},
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
STAGES: Settings = {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 2, "num_labels": CLASSES}
# name -> (settings, size of the images)
IMAGES: Mapping[str, tuple[Settings, int]] = {
    "ViT": (PATCHES, 16),
    "DeiT": (PATCHES, 16),
    "ViTMSN": (PATCHES, 16),
    "Beit": ({**PATCHES, "use_relative_position_bias": True, "use_absolute_position_embeddings": True}, 16),
    "Data2VecVision": ({**PATCHES, "use_relative_position_bias": True}, 16),
    "Dinov2": ({**PATCHES, "mlp_ratio": 2}, 16),
    "Dinov2WithRegisters": ({**PATCHES, "mlp_ratio": 2}, 16),
    "Swin": (WINDOWS, 16),
    "Swinv2": (WINDOWS, 16),
    "ConvNext": (STAGES, 16),
    "ConvNextV2": (STAGES, 16),
    "PoolFormer": ({"hidden_sizes": [4, 8, 8, 8], "depths": [1, 1, 1, 1], "num_labels": CLASSES}, 32),
    "Segformer": ({**PYRAMID, "decoder_hidden_size": 8}, 32),
    "Pvt": ({**PYRAMID, "mlp_ratios": [2, 2, 2, 2]}, 32),
    "FocalNet": ({**WINDOWS, "focal_levels": [1, 1], "focal_windows": [3, 3]}, 16),
}
WAVES: Settings = {
    **TEXT,
    "conv_dim": [8, 8],
    "conv_stride": [4, 4],
    "conv_kernel": [8, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "classifier_proj_size": 8,
    "apply_spec_augment": False,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
SPEECH: Settings = {
    **{k: v for k, v in BOTH.items() if k != "max_position_embeddings"},
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 10,
    "classifier_proj_size": 8,
    "num_labels": CLASSES,
}
TWO_TOWERS: Settings = {
    "text_config": {**TEXT, "num_hidden_layers": 1, "max_position_embeddings": 8},
    "vision_config": PATCHES,
    "num_labels": CLASSES,
}
LATENTS: Settings = {
    **TEXT,
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "max_position_embeddings": LENGTH,
}


def squares(outputs: Any, _: Tensor) -> Tensor:
    """A loss [B] that uses every number of the first output in its own way."""
    y = (outputs.logits if hasattr(outputs, "logits") else outputs[0]).flatten(1)
    return (torch.linspace(0.5, 1.5, y.shape[1], dtype=y.dtype) * (y + 0.3).square()).sum(1)


def _made(name: str, settings: Settings, prepare: Callable[[nn.Module], None] | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model_class = getattr(hf, name)
        model = model_class(model_class.config_class(**settings))
        if prepare is not None:
            prepare(model)
        return model

    return make


def _ids(num_samples: int, length: int = LENGTH) -> Tensor:
    return torch.randint(3, VOCABULARY, (num_samples, length))


def _mask(num_samples: int) -> Tensor:
    return (torch.arange(LENGTH) < (LENGTH - torch.arange(num_samples) % 3)[:, None]).long()


def _batch(**inputs: Callable[[int], Tensor]) -> Callable[[int], Batch]:
    """A maker of batches from makers of inputs; the loss needs no labels."""
    return lambda n: Batch({name: make(n) for name, make in inputs.items()}, torch.zeros(n))


def _randn(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape)


def _without_side_effects(model: nn.Module) -> None:
    """In training these models set `requires_grad` on an activation, and their first call installs hooks."""
    next(m for m in model.modules() if hasattr(m, "_requires_grad"))._requires_grad = False
    with torch.no_grad():
        model(torch.zeros(1, 320))


def _architectures() -> Iterator[Architecture]:
    text = _batch(input_ids=_ids, attention_mask=_mask)
    ids = _batch(input_ids=_ids)
    both = _batch(input_ids=_ids, attention_mask=_mask, decoder_input_ids=lambda n: _ids(n, 4))

    def entry(name: str, settings: Settings, batch: Callable[[int], Batch], **more: Any) -> Architecture:
        return Architecture(name, _made(name, settings, **more), batch, squares)

    for name, settings in ENCODERS.items():
        shared = {k: v for k, v in TEXT.items() if k not in WITHOUT.get(name, ())}
        yield entry(f"{name}ForSequenceClassification", {**shared, **settings}, ids if name == "FNet" else text)
    for name, settings in DECODERS.items():
        yield entry(f"{name}ForCausalLM", {**CAUSAL, **settings}, ids if name == "Rwkv" else text)
    for name, settings in HEADS.items():
        yield entry(name, {**CAUSAL, **settings}, text)
    for name in ("Bart", "MBart", "Pegasus", "BlenderbotSmall", "M2M100", "PLBart"):
        yield entry(f"{name}ForConditionalGeneration", BOTH, both)
    yield entry("MarianMTModel", BOTH, both)
    for name in ("T5", "MT5", "UMT5", "LongT5"):
        yield entry(f"{name}ForConditionalGeneration", T5, both)
    for name, (settings, size) in IMAGES.items():
        yield entry(f"{name}ForImageClassification", settings, _batch(pixel_values=_randn(3, size, size)))
    for name in ("CLIP", "Siglip"):
        yield entry(f"{name}ForImageClassification", TWO_TOWERS, _batch(pixel_values=_randn(3, 16, 16)))
    waves = _batch(input_values=_randn(320))
    for name in ("Wav2Vec2", "Hubert", "WavLM", "UniSpeechSat"):
        yield entry(f"{name}ForSequenceClassification", WAVES, waves, prepare=_without_side_effects)
    spectrogram = {**PATCHES, "frequency_stride": 4, "time_stride": 4, "max_length": 16, "num_mel_bins": 8}
    yield entry("ASTForAudioClassification", spectrogram, _batch(input_values=_randn(16, 8)))
    yield entry("WhisperForAudioClassification", SPEECH, _batch(input_features=_randn(8, 20)))
    video = {**PATCHES, "patch_size": 8, "num_frames": 2, "tubelet_size": 2}
    yield entry("VideoMAEForVideoClassification", video, _batch(pixel_values=_randn(2, 3, 16, 16)))
    yield entry("PerceiverForSequenceClassification", LATENTS, _batch(inputs=_ids, attention_mask=_mask))


def _refused() -> Iterator[tuple[Architecture, str]]:
    images = _batch(pixel_values=_randn(3, 16, 16))
    residual = {"embedding_size": 4, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic", "num_labels": 3}
    yield (
        Architecture("ResNetForImageClassification", _made("ResNetForImageClassification", residual), images, squares),
        "BatchNorm in training mode writes statistics of the batch into buffers",
    )
    waves = _batch(input_values=_randn(320))
    yield (
        Architecture(
            "SEWForSequenceClassification",
            _made("SEWForSequenceClassification", {**WAVES, "squeeze_factor": 1}),
            waves,
            squares,
        ),
        "forward sets requires_grad on an activation, which torch.compile does not take",
    )


# Those that every run of the tests measures, and the ones that add little to them.
OFTEN = {
    "Bert", "Electra", "MPNet", "ConvBert", "RoFormer", "DebertaV2", "Albert", "ModernBert", "FNet", "XLNet", "XLM",
    "Llama", "Qwen3", "Gemma2", "Phi", "Phi3", "Cohere", "GPTNeoX", "Bloom", "Falcon", "Mpt", "GPTJ", "GPTNeo", "OPT",
    "Mamba", "GPT2", "Bart", "Pegasus", "T5", "LongT5", "ViT", "Beit", "Dinov2", "Swin", "Swinv2", "ConvNextV2",
    "PoolFormer", "FocalNet", "CLIP", "Wav2Vec2", "AST", "Whisper", "VideoMAE", "Perceiver",
}  # fmt: skip
_ALL = (*_architectures(), *OWN)
ZOO = tuple(a for a in _ALL if a in OWN or a.name.split("For")[0].removesuffix("LMHeadModel") in OFTEN)
NIGHTLY = tuple(a for a in _ALL if a not in ZOO)
REFUSED = tuple(_refused())
