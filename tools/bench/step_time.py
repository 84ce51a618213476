"""Time of a training step, private and not, on a GPT-2-like model: the variants take turns within one run.

    python tools/bench/step_time.py                      the sizes that the README's figures are for
    python tools/bench/step_time.py --layers 2 --rounds 5 --variants plain-full,dp-full

A step is: clear the gradients, forward, per-sample losses, backward. There is no optimizer step, which would be the
same for a private and a plain variant of the same mode. Every variant has the loss inside its compiled graph, unless
`--loss outside` is given. The ratio is taken within each round, since a machine's speed drifts over a run; its spread
is that of the rounds.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel

import dpgraph

Step = Callable[[], None]
BASELINE = "plain-full"
WARM_UP_ROUNDS = 2


class Loss(str, Enum):
    """Where the loss is computed."""

    inside = "inside"
    outside = "outside"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the model and the batch: B samples of T tokens out of V."""

    layers: int
    width: int
    heads: int
    tokens: int
    batch: int
    vocabulary: int


@dataclass(slots=True)
class Variant:
    """One way to train, with the seconds of its steps by round."""

    name: str
    model: nn.Module
    step: Step
    first_step: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0


class LanguageModel(nn.Module):
    """The model without its dictionary of outputs, and without what generation needs."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gpt2 = GPT2LMHeadModel(
            GPT2Config(
                n_layer=sizes.layers,
                n_embd=sizes.width,
                n_head=sizes.heads,
                n_positions=sizes.tokens,
                vocab_size=sizes.vocabulary,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, T, V] of tokens [B, T]."""
        logits: Tensor = self.gpt2(input_ids=tokens).logits
        return logits


def sample_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Losses [B] of logits [B, T, V] as predictions of the next token."""
    return cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").sum(1)


class WithLoss(nn.Module):
    """A model that returns its samples' losses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Losses [B] of tokens [B, T]."""
        return sample_losses(self.model(tokens), tokens)


def make_plain(model: nn.Module, mode: str, tokens: Tensor, loss: Loss) -> Step:
    """A step of ordinary training, compiled with torch's own defaults."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(mode == "full" or name.endswith("bias"))
    whole = WithLoss(model) if loss is Loss.inside else model
    compiled = torch.compile(whole, fullgraph=True, dynamic=False)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        result = compiled(tokens)
        losses = result if loss is Loss.inside else sample_losses(result, tokens)
        losses.sum().backward()

    return step


def make_private(model: nn.Module, mode: str, tokens: Tensor, loss: Loss) -> Step:
    """A step of private training."""
    inside = loss is Loss.inside
    private = dpgraph.dp_compile(
        model,
        "full" if mode == "full" else "bitfit",
        loss_fn=sample_losses if inside else None,
        options=dpgraph.CompileOptions(backend="inductor"),
    )

    def step() -> None:
        private.zero_grad(set_to_none=True)
        losses = private(tokens, targets=(tokens,)) if inside else sample_losses(private(tokens), tokens)
        losses.sum().backward()

    return step


MAKERS = {"plain": make_plain, "dp": make_private}
VARIANTS = [f"{kind}-{mode}" for mode in ("full", "bitfit") for kind in MAKERS]


def run_in_turns(variants: list[Variant], rounds: int, steps: int, console: Console) -> None:
    """Fill in the times: `rounds` rounds, in each of which every variant takes `steps` steps, in changing order."""
    for variant in track(variants, "compiling", console=console, transient=True):
        start = time.perf_counter()
        variant.step()
        variant.first_step = time.perf_counter() - start
    for turn in track(range(WARM_UP_ROUNDS + rounds), "timing", console=console, transient=True):
        shift = turn % len(variants)
        for variant in variants[shift:] + variants[:shift]:
            start = time.perf_counter()
            for _ in range(steps):
                variant.step()
            if turn >= WARM_UP_ROUNDS:
                variant.seconds.append((time.perf_counter() - start) / steps)


def peak_of(variant: Variant) -> int:
    """Bytes that tensors made within a step hold at once, at most: gradients, activations, not the parameters."""
    variant.model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        variant.step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def show(variants: list[Variant], sizes: Sizes, threads: int, console: Console) -> None:
    """Print the table."""
    baseline = next((v for v in variants if v.name == BASELINE), None)
    console.print(f"{sizes}, {threads} threads, torch {torch.__version__}")
    table = Table()
    table.add_column("variant", no_wrap=True)
    for column in ("median ms", "min ms", "ratio", "quartiles", "of minima", "peak MiB", "first s"):
        table.add_column(column, justify="right", no_wrap=True)
    for variant in variants:
        ratios: list[str] = ["", "", ""]
        if baseline is not None:
            paired = [a / b for a, b in zip(variant.seconds, baseline.seconds, strict=True)]
            low, middle, high = statistics.quantiles(paired, n=4) if len(paired) > 1 else paired * 3
            minima = min(variant.seconds) / min(baseline.seconds)
            ratios = [f"{middle:.3f}", f"{low:.2f} to {high:.2f}", f"{minima:.3f}"]
        table.add_row(
            variant.name,
            f"{statistics.median(variant.seconds) * 1e3:.1f}",
            f"{min(variant.seconds) * 1e3:.1f}",
            *ratios,
            f"{variant.peak_bytes / 2**20:.0f}" if variant.peak_bytes else "",
            f"{variant.first_step:.1f}",
        )
    console.print(table)
    console.print(
        f"ratio: median over the rounds of time / time of {BASELINE} in the same round, with its quartiles; "
        "of minima: ratio of the least times; peak: tensors made within a step; first: the first step, compilation "
        "included"
    )


def main(
    layers: Annotated[int, typer.Option(min=1)] = 4,
    width: Annotated[int, typer.Option(min=1)] = 384,
    heads: Annotated[int, typer.Option(min=1)] = 6,
    tokens: Annotated[int, typer.Option(min=2, help="T, tokens of a sample")] = 128,
    batch: Annotated[int, typer.Option(min=2, help="B, samples of a batch")] = 8,
    vocabulary: Annotated[int, typer.Option(min=2, help="V, size of the vocabulary")] = 5000,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch's kernels")] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
    steps: Annotated[int, typer.Option(min=1, help="steps of a variant's turn")] = 2,
    variants: Annotated[str, typer.Option(help=f"which of {', '.join(VARIANTS)}")] = ",".join(VARIANTS),
    loss: Annotated[Loss, typer.Option(help="whether the loss is compiled with the model")] = Loss.inside,
    memory: Annotated[bool, typer.Option(help="measure the peak of tensor memory too")] = True,
) -> None:
    """Time the variants in turns and print median, minimum and ratio to plain-full."""
    chosen = variants.split(",")
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; choose from {', '.join(VARIANTS)}")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    console = Console(width=100)
    sizes = Sizes(layers, width, heads, tokens, batch, vocabulary)
    model = LanguageModel(sizes)
    data = torch.randint(0, vocabulary, (batch, tokens))
    made = []
    for name in chosen:
        kind, _, mode = name.partition("-")
        own = copy.deepcopy(model)
        made.append(Variant(name, own, MAKERS[kind](own, mode, data, loss)))
    run_in_turns(made, rounds, steps, console)
    for variant in made if memory else []:
        variant.peak_bytes = peak_of(variant)
    show(made, sizes, threads, console)


if __name__ == "__main__":
    sys.exit(typer.run(main))
