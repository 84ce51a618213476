"""How far rounding may be off in the squared gradient norms of real samples: `python -m tools.norm_errors`.

    python -m tools.norm_errors                                       all cases, by the default plan and by ghost norms
    python -m tools.norm_errors gpt2-t128 --samples 20 --dtype bfloat16 --out errors.json

Needs what tools/run_example installs, and trains nothing. `minilm` is all-MiniLM-L6-v2 with a random head on 10,605
sentences and their labels, those near neutral too, else as in examples/movie_reviews. `gpt2-t32` and `gpt2-t128` are
GPT-2 (124 million parameters, tied embedding, dropout as configured) at random weights, on blocks of T tokens of these
sentences, with the next tokens' losses summed. An error is a proved bound; where it is above twice `certified.SHARE`,
the sample is cancelled: an upper bound of its norm clips.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from dpgraph import CompileOptions, dp_compile, losses
from dpgraph.gradients.certified import SHARE
from examples.movie_reviews import sentences as reviews
from examples.movie_reviews.encoder import SentenceClassifier, encode
from examples.movie_reviews.training import Settings

Precision = Literal["float32", "bfloat16", "float64"]

HEAD_SCALE = 0.02
QUANTILES = {"median": 0.5, "99%": 0.99, "99.9%": 0.999, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Case:
    """A model, its samples' losses, its data (targets last), how many samples are a batch, and how many run at most."""

    make: Callable[[], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]
    draw: Callable[[reviews.Sentences], tuple[Tensor, ...]]
    batch: int
    most: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of a case.

    Attributes:
        counts: of samples, of which the module says that many are cancelled and that many not finite.
        quantiles: of the errors, by name.
        histogram: how many errors are in [2^k, 2^(k + 1)), by k; -27 and 0 have what lies beyond, too.
        worst: number in the data, norm and error of the samples with the largest errors.
        forms: how many terms of per-sample gradients there are of each kind.
    """

    case: str
    strategy: str
    dtype: str
    counts: dict[str, int]
    quantiles: dict[str, float]
    histogram: dict[int, int]
    worst: tuple[tuple[int, float, float], ...]
    forms: dict[str, int]
    seconds: float


def load_all_sentences(cache: Path) -> reviews.Sentences:
    """All sentences with the sign of their ratings, where the example leaves out those near neutral."""
    reviews.load_sentences(cache)  # downloads the archive, and checks it
    rows = [line.split("\t") for line in reviews._read_table(cache / reviews.ARCHIVE).splitlines()]
    labels = torch.tensor([int(float(rating) > 0) for _, rating, _ in rows])
    return reviews.Sentences(tuple(text.strip() for *_, text in rows), labels)


def make_minilm() -> nn.Module:
    """The example's classifier; its head is random, since one of zeros leaves the encoder gradients of zero."""
    model = SentenceClassifier()
    nn.init.normal_(model.head.weight, std=HEAD_SCALE)
    return model


def draw_sentences(sentences: reviews.Sentences) -> tuple[Tensor, ...]:
    """Tokens and masks as in the example [N, T], and labels [N]."""
    encoded = encode(sentences, Settings().num_tokens)
    return encoded.ids, encoded.mask, encoded.labels


def draw_blocks(sentences: reviews.Sentences, length: int) -> tuple[Tensor, ...]:
    """Blocks of T tokens of all sentences, one after the other: [N, T] as inputs, and again as targets."""
    encoded = encode(sentences, num_tokens=512)
    stream = encoded.ids[encoded.mask.bool()]
    blocks = stream[: len(stream) // length * length].unflatten(0, (-1, length))
    return blocks, blocks.clone()


def _gpt2(length: int, batch: int, most: int) -> Case:
    loss = partial(losses.token_cross_entropy, shift=True, reduction="sum")
    return Case(lambda: GPT2LMHeadModel(GPT2Config()), loss, partial(draw_blocks, length=length), batch, most)


CASES = {
    "minilm": Case(make_minilm, losses.cross_entropy, draw_sentences, batch=64, most=20_000),
    "gpt2-t32": _gpt2(32, batch=10, most=300),
    "gpt2-t128": _gpt2(128, batch=5, most=150),
}


def measure(name: str, strategy: str, dtype: str, sentences: reviews.Sentences, most: int | None) -> Found:
    """Run every sample once, in random order."""
    case, start = CASES[name], time.perf_counter()
    torch._dynamo.reset()
    torch.manual_seed(0)
    options = CompileOptions(norm_strategy=strategy)  # type: ignore[arg-type]
    module = dp_compile(case.make().to(getattr(torch, dtype)), "full", loss_fn=case.loss, options=options)
    data = case.draw(sentences)
    order = torch.randperm(len(data[0]))[: most or case.most]
    norms, errors, counts = [], [], {"samples": len(order), "cancelled": 0, "not finite": 0}
    for indices in track(order.split(case.batch), f"{name}, {strategy}"):
        *inputs, targets = (x[indices] for x in data)
        module(*inputs, targets=(targets,)).sum().backward()
        norms.append(module.grad_norms.double())
        errors.append(module.norm_errors.double())
        counts["cancelled"] += module.num_cancelled
        counts["not finite"] += module.num_nonfinite
        module.zero_grad(set_to_none=True)
    norm, error = torch.cat(norms), torch.cat(errors)
    exponents = error.nan_to_num(1.0).clamp(2.0**-27, 1.0).log2().floor().int()
    worst = error.argsort(descending=True)[:5].tolist()
    return Found(
        *(name, strategy, dtype, counts),
        {key: error.quantile(q, interpolation="higher").item() for key, q in QUANTILES.items()},
        dict(sorted(Counter(exponents.tolist()).items())),
        tuple((int(order[i]), norm[i].item(), error[i].item()) for i in worst),
        dict(Counter(kind for kinds in module.rewriting.forms.values() for kind in kinds)),
        time.perf_counter() - start,
    )


def show(found: Sequence[Found], console: Console) -> None:
    """Print the figures of one case, and a histogram for each strategy."""
    table = Table(title=f"{found[0].case}, {found[0].dtype}: error of the square as a share of it")
    for column in ("plan", *found[0].counts, *QUANTILES, "seconds", "forms"):
        table.add_column(column, justify="left" if column in ("plan", "forms") else "right")
    for one in found:
        figures = *(f"{x:,}" for x in one.counts.values()), *(f"{x:.2e}" for x in one.quantiles.values())
        forms = ", ".join(f"{number} {kind}" for kind, number in one.forms.items())
        table.add_row(one.strategy, *figures, f"{one.seconds:.0f}", forms)
    console.print(table)
    threshold = round(math.log2(2 * SHARE))
    for one in found:
        console.print(f"{one.case}, {one.strategy}: samples with errors from this power of two to the next")
        for k in range(min(one.histogram), max(threshold, *one.histogram) + 1):
            if k == threshold:
                console.print(f"  ---- 2 SHARE = {2 * SHARE:.2e}: from here on the upper bound clips ----")
            number = one.histogram.get(k, 0)
            console.print(f"  {2.0**k:.1e} {number:>7,} {'#' * math.ceil(60 * number / sum(one.histogram.values()))}")
        worst = (f"sample {i}: norm {norm:.2e}, error {error:.2e}" for i, norm, error in one.worst)
        console.print(f"  largest: {'; '.join(worst)}\n", soft_wrap=True)


def main(
    cases: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(CASES)}; all by default.")] = None,
    plan: Annotated[list[str], typer.Option(help="Strategies for norms.")] = ["auto", "ghost"],  # noqa: B006
    samples: Annotated[int | None, typer.Option(min=1, help="The most samples of a case, in place of its own.")] = None,
    dtype: Annotated[Precision, typer.Option(help="Of parameters.")] = "float32",
    cache: Annotated[Path, typer.Option(help="Folder for the downloaded sentences.")] = Path(".cache"),
    out: Annotated[Path | None, typer.Option(help="File for the JSON.")] = None,
) -> None:
    """Measure, and print tables and a line of JSON."""
    if unknown := set(cases or ()) - set(CASES):
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    console, sentences = Console(width=150, highlight=False), load_all_sentences(cache)
    record: list[dict[str, Any]] = []
    for name in cases or CASES:
        found = [measure(name, strategy, dtype, sentences, samples) for strategy in plan]
        show(found, console)
        record += map(asdict, found)
    line = json.dumps({"threshold": 2 * SHARE, "torch": torch.__version__, "found": record})
    line = json.dumps(json.loads(line, parse_constant=str))  # there is no word for infinity in JSON
    if out is not None:
        out.write_text(line + "\n", "utf-8")
    print(line)


if __name__ == "__main__":
    typer.run(main)
