"""The zoo: which architectures every run of the tests measures, which the nightly one adds, and which are refused.

Small configurations of the models of transformers as they are, by family, with random weights and without dropout; and
models of our own.
"""

import re
from collections.abc import Iterator

from tests.models.own import OWN
from tests.zoo import multimodal
from tests.zoo.entries import Refusal, batch_of, entry, randn
from tests.zoo.experts import experts, grouped_experts
from tests.zoo.senses import WAVES, senses
from tests.zoo.text import text

__all__ = ["NIGHTLY", "REFUSED", "ZOO"]


def _refused() -> Iterator[Refusal]:
    residual = {"embedding_size": 4, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic", "num_labels": 3}
    yield Refusal(
        entry("ResNetForImageClassification", residual, batch_of(pixel_values=randn(3, 16, 16))),
        "statistics of BatchNorm, which depend on the samples, into",
        "BatchNorm in training mode writes statistics of the batch into buffers",
    )
    yield Refusal(
        entry("SEWForSequenceClassification", {**WAVES, "squeeze_factor": 1}, batch_of(input_values=randn(320))),
        "one graph",
        "forward sets requires_grad on an activation, which torch.compile does not take",
    )
    yield from multimodal.refused()
    yield from grouped_experts()


# Those that every run of the tests measures, by the names of their families; others add little, or take long.
OFTEN = {
    "Bert", "Electra", "MPNet", "ConvBert", "RoFormer", "DebertaV2", "Albert", "ModernBert", "FNet", "XLNet", "XLM",
    "Llama", "Qwen3", "Phi", "Phi3", "Cohere", "GPTNeoX", "Bloom", "Falcon", "Mpt", "GPTJ", "GPTNeo", "OPT", "Mamba",
    "GPT2", "Bart", "T5", "ViT", "Beit", "Dinov2", "Swin", "ConvNextV2", "CLIP", "Wav2Vec2", "AST", "Whisper",
    "VideoMAE", "VisualBert", "LayoutLMv3", "Blip", "Git", "CLIP for text with an image", "Speech2Text", "Mixtral",
    "GptOss", "Segformer",
}  # fmt: skip
TASK = re.compile(r"(For[A-Z]\w*|LMHeadModel|MTModel)$")
_ALL = (*text(), *experts(), *senses(), *multimodal.multimodal(), *OWN)
ZOO = tuple(a for a in _ALL if a in OWN or TASK.sub("", a.name) in OFTEN)
NIGHTLY = tuple(a for a in _ALL if a not in ZOO)
REFUSED = tuple(_refused())
