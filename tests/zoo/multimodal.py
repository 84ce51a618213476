"""Text together with images or sound."""

from collections.abc import Iterator
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tests.models.architecture import Architecture
from tests.zoo.entries import BOTH, CLASSES, TEXT, Refusal, Settings, batch_of, entry, ids, mask, randn, squares
from tests.zoo.senses import PATCHES
from tests.zoo.text import CAUSAL

SHORT: Settings = {**TEXT, "max_position_embeddings": 8}
SMALL: Settings = {"text_config": SHORT, "vision_config": PATCHES, "projection_dim": 16}
REGIONS: Settings = {**TEXT, "visual_embedding_dim": 8}
DOCUMENT: Settings = {
    **TEXT,
    "coordinate_size": 2,
    "shape_size": 4,
    "max_2d_position_embeddings": 20,
    "input_size": 16,
    "patch_size": 8,
}
OBJECTS: Settings = {
    **TEXT,
    "l_layers": 1,
    "r_layers": 1,
    "x_layers": 1,
    "visual_feat_dim": 8,
    "num_qa_labels": CLASSES,
}
BRIDGE: Settings = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "text_config": {**TEXT, "hidden_size": 64, "max_position_embeddings": 12},
    "vision_config": {"hidden_size": 64, "num_hidden_layers": 1, "patch_size": 8, "image_size": 16},
}
FLAVA: Settings = {
    "text_config": SHORT,
    "image_config": PATCHES,
    "multimodal_config": {k: v for k, v in PATCHES.items() if k not in ("image_size", "patch_size", "num_labels")},
    "hidden_size": 16,
    "projection_dim": 16,
    "init_codebook": False,
}
TRANSCRIPTS: Settings = {
    **{k: v for k, v in BOTH.items() if k != "max_position_embeddings"},
    "max_source_positions": 20,
    "max_target_positions": 10,
    "input_feat_per_channel": 8,
    "conv_channels": 8,
    "conv_kernel_sizes": [3, 3],
}

LLAVA: Settings = {
    "text_config": {"model_type": "llama", **CAUSAL},
    "vision_config": {"model_type": "clip_vision_model", **PATCHES},
    "image_token_id": 3,
}


class Pair(nn.Module):
    """A head of our own on what CLIP makes of a text and of its image; CLIP's own logits compare all with all."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = hf.CLIPModel(hf.CLIPConfig(**SMALL))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> tuple[Tensor]:
        text = self.towers.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        image = self.towers.vision_model(pixel_values=pixel_values).pooler_output
        return (self.head(torch.cat([self.towers.text_projection(text), self.towers.visual_projection(image)], 1)),)


class Fused(nn.Module):
    """A head of our own on the first token of FLAVA's encoder of both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = hf.FlavaModel(hf.FlavaConfig(**FLAVA))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, **inputs: Any) -> tuple[Tensor]:
        return (self.head(self.encoder(**inputs).multimodal_embeddings[:, 0]),)


def boxes(num_samples: int) -> Tensor:
    """Of each token, the corners (x0, y0, x1, y1)."""
    corners = torch.randint(0, 10, (num_samples, 6, 2))
    return torch.cat([corners, corners + torch.randint(0, 10, (num_samples, 6, 2))], 2)


def with_images(num_samples: int) -> Tensor:
    """Texts that begin with a place for each patch of an image."""
    return torch.cat([torch.full((num_samples, 16), 3), ids(num_samples) + 1], 1).clamp_max(60)


def multimodal() -> Iterator[Architecture]:
    """Classifiers of texts with images, a captioner, and a transcriber."""
    text = {"input_ids": ids, "attention_mask": mask}
    image = {"pixel_values": randn(3, 16, 16)}
    regions = {
        "visual_embeds": randn(3, 8),
        "visual_attention_mask": lambda n: torch.ones(n, 3),
        "visual_token_type_ids": lambda n: torch.ones(n, 3, dtype=torch.long),
    }
    objects = {"visual_feats": randn(3, 8), "visual_pos": randn(3, 4)}
    yield entry("VisualBertForQuestionAnswering", REGIONS, batch_of(**text, **regions))
    yield entry("LayoutLMv3ForSequenceClassification", DOCUMENT, batch_of(**text, **image, bbox=boxes))
    yield entry("LxmertForQuestionAnswering", OBJECTS, batch_of(**text, **objects))
    yield entry("BridgeTowerForImageAndTextRetrieval", BRIDGE, batch_of(**text, **image))
    yield entry("BlipForImageTextRetrieval", {**SMALL, "image_text_hidden_size": 16}, batch_of(**text, **image))
    yield entry("GitForCausalLM", {**TEXT, "vision_config": PATCHES}, batch_of(**text, **image))
    yield Architecture("CLIP for text with an image", Pair, batch_of(**text, **image), squares)
    yield Architecture("FLAVA for text with an image", Fused, batch_of(**text, **image), squares)
    sound = {"input_features": randn(20, 8), "decoder_input_ids": lambda n: ids(n, 4)}
    yield entry("Speech2TextForConditionalGeneration", TRANSCRIPTS, batch_of(**sound))


def refused() -> Iterator[Refusal]:
    """Models whose texts and images, or the patches of one image, are told apart by the data of the whole batch."""
    both = batch_of(input_ids=ids, attention_mask=mask, pixel_values=randn(3, 16, 16))
    yield Refusal(
        entry("CLIPModel", SMALL, both),
        "multiplies every sample with every other",
        "its logits compare every text of the batch with every image",
    )
    yield Refusal(
        entry("ViltForQuestionAnswering", {**TEXT, **PATCHES}, both),
        "one graph",
        "lets the number of patches that a mask keeps decide on shapes, and picks them at random from all samples",
    )
    images = batch_of(input_ids=with_images, pixel_values=randn(3, 16, 16))

    def call_once(model: nn.Module) -> None:
        """The first call installs hooks, which the compiler does not take."""
        with torch.no_grad():
            model(**images(1).inputs)

    yield Refusal(
        entry("LlavaForConditionalGeneration", LLAVA, images, prepare=call_once),
        "fixes the number of samples",
        "writes the features of all images, in the order of the batch, to wherever the batch's texts have a place",
    )
