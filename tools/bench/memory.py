"""Predicted and measured peaks of a private training step, on ten models.

    python tools/bench/memory.py                              all models in both modes, through Inductor
    python tools/bench/memory.py --models gpt2,vit --modes bitfit

The prediction is read off the graphs; the measurement is of one step on zeros: the most bytes that tensors made within
it hold at once (`model.report.measured()`). Parameters and inputs count in neither.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import transformers as hf
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import dpgraph

TOLERANCE = 0.05
VOCABULARY, WIDTH, LAYERS, HEADS, TOKENS, BATCH = 2000, 192, 2, 6, 96, 16
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


class Attends(nn.Module):
    """An encoder of torch's own, with a head on the mean of its positions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 10] of x [B, T, d]."""
        logits: Tensor = self.head(self.encoder(x).mean(1))
        return logits


def _gpt2() -> nn.Module:
    config = hf.GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=TOKENS, vocab_size=VOCABULARY, use_cache=False
    )
    return hf.GPT2LMHeadModel(config)


def _convolutional() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 64), nn.Flatten(), nn.Linear(64 * 16, 10))


def _perceptron() -> nn.Module:
    return nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(512, 512), nn.GELU())), nn.Linear(512, 10))


def _encoder(kind: type, config: type, **more: Any) -> Callable[[], nn.Module]:
    return lambda: kind(config(**TEXT, **more))


def _tokens(batch: int) -> tuple[Tensor, ...]:
    return (torch.randint(3, VOCABULARY, (batch, TOKENS)),)


def _images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 32, 32),)


# name -> (make, arguments of a call, samples in units of `BATCH`)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]], int]] = {
    "gpt2": (_gpt2, _tokens, 1),
    "bert": (_encoder(hf.BertForSequenceClassification, hf.BertConfig, **DROPOUT), _tokens, 1),
    "roberta": (_encoder(hf.RobertaForSequenceClassification, hf.RobertaConfig), _tokens, 1),
    "opt": (
        lambda: hf.OPTForCausalLM(
            hf.OPTConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                ffn_dim=4 * WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                word_embed_proj_dim=WIDTH,
                use_cache=False,
            )
        ),
        _tokens,
        1,
    ),
    "qwen2": (
        _encoder(hf.Qwen2ForCausalLM, hf.Qwen2Config, num_key_value_heads=2, use_cache=False),
        _tokens,
        1,
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                intermediate_size=4 * WIDTH,
                image_size=32,
                patch_size=4,
            )
        ),
        _images,
        2,
    ),
    "distilbert": (
        lambda: hf.DistilBertForMaskedLM(
            hf.DistilBertConfig(vocab_size=VOCABULARY, dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=4 * WIDTH)
        ),
        _tokens,
        1,
    ),
    "torch encoder": (Attends, lambda batch: (torch.randn(batch, TOKENS, WIDTH),), 1),
    "convolutional": (_convolutional, _images, 4),
    "perceptron": (_perceptron, lambda batch: (torch.randn(batch, 512),), 64),
}


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes predicted and measured of one model in one mode, and the seconds of the prediction."""

    name: str
    mode: str
    predicted: int
    measured: int
    seconds: float

    @property
    def ratio(self) -> float:
        """predicted / measured."""
        return self.predicted / self.measured


def compare(name: str, mode: str, backend: str) -> Row:
    """Compile one model, predict and measure."""
    make, arguments, times = MODELS[name]
    torch._dynamo.reset()
    torch.manual_seed(0)
    options = dpgraph.CompileOptions(backend="inductor" if backend == "inductor" else "eager")
    chosen = "full" if mode == "full" else "bitfit"
    private = dpgraph.dp_compile(make(), chosen, options=options, example_inputs=arguments(BATCH * times))
    start = time.perf_counter()
    predicted = private.report.memory.peak()
    seconds = time.perf_counter() - start
    return Row(name, mode, predicted, private.report.measured().measured, seconds)


def show(rows: list[Row], backend: str, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"peak of a step, {backend}, torch {torch.__version__}")
    table.add_column("model")
    for column in ("mode", "predicted MiB", "measured MiB", "predicted / measured", "prediction s"):
        table.add_column(column, justify="right")
    for row in rows:
        mark = "" if abs(row.ratio - 1) <= TOLERANCE else " !"
        table.add_row(
            row.name,
            row.mode,
            f"{row.predicted / 2**20:.2f}",
            f"{row.measured / 2**20:.2f}",
            f"{row.ratio:.4f}{mark}",
            f"{row.seconds:.1f}",
        )
    console.print(table)


def main(
    models: Annotated[str, typer.Option(help="names, with commas between")] = ",".join(MODELS),
    modes: Annotated[str, typer.Option(help="full, bitfit")] = "full,bitfit",
    backend: Annotated[str, typer.Option(help="inductor, eager")] = "inductor",
) -> None:
    """Predict and measure, and print both with their ratio; the exit code is 1 if one is off by more than 5%."""
    chosen = models.split(",")
    if unknown := [name for name in chosen if name not in MODELS]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; choose from {', '.join(MODELS)}")
    console = Console(width=100)
    rows = []
    for name in chosen:
        for mode in modes.split(","):
            rows.append(compare(name, mode, backend))
            console.print(f"{name} {mode}: {rows[-1].ratio:.4f}")
    show(rows, backend, console)
    sys.exit(any(abs(row.ratio - 1) > TOLERANCE for row in rows))


if __name__ == "__main__":
    typer.run(main)
