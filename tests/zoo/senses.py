"""Images, films and sound."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from tests.models.architecture import Architecture
from tests.zoo.entries import BOTH, CLASSES, TEXT, Settings, batch_of, entry, randn

PATCHES: Settings = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
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


def without_side_effects(model: nn.Module) -> None:
    """In training these models set `requires_grad` on an activation, and their first call installs hooks."""
    next(m for m in model.modules() if hasattr(m, "_requires_grad"))._requires_grad = False
    with torch.no_grad():
        model(torch.zeros(1, 320))


def senses() -> Iterator[Architecture]:
    """Classifiers of images, of films and of sound."""
    for name, (settings, size) in IMAGES.items():
        yield entry(f"{name}ForImageClassification", settings, batch_of(pixel_values=randn(3, size, size)))
    for name in ("CLIP", "Siglip"):
        yield entry(f"{name}ForImageClassification", TWO_TOWERS, batch_of(pixel_values=randn(3, 16, 16)))
    waves = batch_of(input_values=randn(320))
    for name in ("Wav2Vec2", "Hubert", "WavLM", "UniSpeechSat"):
        yield entry(f"{name}ForSequenceClassification", WAVES, waves, prepare=without_side_effects)
    spectrogram = {**PATCHES, "frequency_stride": 4, "time_stride": 4, "max_length": 16, "num_mel_bins": 8}
    yield entry("ASTForAudioClassification", spectrogram, batch_of(input_values=randn(16, 8)))
    yield entry("WhisperForAudioClassification", SPEECH, batch_of(input_features=randn(8, 20)))
    video = {**PATCHES, "patch_size": 8, "num_frames": 2, "tubelet_size": 2}
    yield entry("VideoMAEForVideoClassification", video, batch_of(pixel_values=randn(2, 3, 16, 16)))
