"""What other tools add for ONE sample whose gradient cancels, so that a ghost norm in float32 comes out too small.

    python -m tools.arithmetic_of_peers        with opacus installed (1.6 was used)

With x [1, T, d] into a bias-free `nn.Linear`, and the loss sum_tk c[0, t, k] out[0, t, k], c [1, T, p] is the output
gradient, and the gradient is the sum over t of c_t x_t^T [p, d]. Its squared norm is the sum over s and t of
<c_s, c_t> <x_s, x_t> (Li et al. 2022, "Large Language Models Can Be Strong Differentially Private Learners", 4): terms
of size |c|^2 |x|^2 whose rounding, not the gradient, decides what is left of them.

Each sample is the worst of `NUM_TRIES` seeded draws, by the formula above in float32 with the sums of opacus; all
measurements are of that sample. One thread, since the order of the sums matters. fastDP is not in the package index.
"""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from opacus import PrivacyEngine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CLIP = 1.0
NUM_TRIES = 400
OUTPUTS = 16
PACKAGES = ("torch", "opacus")
MODES = ("ghost", "hooks")

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def once(inputs: int) -> nn.Module:
    """The layer itself: opacus has its ghost norm for `nn.Linear` and not for what inherits from it."""
    return nn.Linear(inputs, OUTPUTS, bias=False)


class Twice(nn.Module):
    """The same linear layer on each half of the tokens."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, OUTPUTS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [1, T, p] of x [1, T, d]."""
        return torch.cat([self.linear(half) for half in x.chunk(2, dim=1)], dim=1)


class Product(nn.Module):
    """The loss: the sum of output times c for each sample [B], added up unless the reduction is "none"."""

    reduction = "sum"

    def forward(self, output: Tensor, c: Tensor) -> Tensor:
        """Losses of an output [B, T, p]."""
        losses = (output * c).flatten(1).sum(1)
        return losses if self.reduction == "none" else losses.sum()


@dataclass(frozen=True, slots=True)
class Sample:
    """The inputs x [1, T, d] and output gradients c [1, T, p] of a draw, and what the formula says of them."""

    seed: int
    x: Tensor
    c: Tensor

    @property
    def norm(self) -> float:
        """Of the gradient, in float64."""
        return float((self.c[0].double().mT @ self.x[0].double()).norm())

    @property
    def gram_norm_sq(self) -> float:
        """Of the gradient, from Gram matrices in float32; not clamped."""
        c_gram = torch.einsum("nik,njk->nij", self.c, self.c)
        x_gram = torch.einsum("nik,njk->nij", self.x, self.x)
        return float(torch.einsum("n...i,n...i->n", c_gram, x_gram))

    @property
    def excess(self) -> float:
        """Norm after clipping by the Gram norm, in units of the bound; -1 where that is NaN."""
        if math.isnan(self.gram_norm_sq):
            return -1.0
        gram_norm = math.sqrt(max(self.gram_norm_sq, 0.0))
        return self.norm * min(1 / (gram_norm + 1e-6), 1 / CLIP)


def unit(generator: torch.Generator, num: int, width: int) -> Tensor:
    """Random directions [num, width]."""
    return nn.functional.normalize(torch.randn(num, width, generator=generator), dim=1)


def between(generator: torch.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return low * math.pow(high / low, float(torch.rand((), generator=generator)))


def repeated_tokens(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """16 tokens of size 1e4, equal but for noise; output gradients u, -u, u, -u, ... of size 1."""
    tokens = 1e4 * unit(generator, 1, 1024)
    x = tokens + between(generator, 1e-2, 0.3) * torch.randn(16, 1024, generator=generator)
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    return x[None], (signs[:, None] * unit(generator, 1, OUTPUTS))[None]


def used_twice(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """16 tokens of size 1e4, then the same but for noise; output gradients of size 1, then their opposites."""
    x = 1e4 * unit(generator, 16, 1024)
    c = unit(generator, 16, OUTPUTS)
    noisy = x + between(generator, 1e-2, 0.3) * torch.randn(16, 1024, generator=generator)
    return torch.cat([x, noisy])[None], torch.cat([c, -c])[None]


def overflow(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """32 tokens of size 1e13; one large output gradient a u against 31 small ones -b u, with b < a < 31 b.

    The terms of the large one are a^2 and 31 times -a b: a partial sum below -3.4e38 is -inf, and so is what follows.
    """
    x = 1e13 * unit(generator, 1, 16) * (1 + 1e-3 * torch.randn(32, 16, generator=generator))
    b = between(generator, 1e5, 5e5)
    weights = torch.full((32,), -b)
    weights[int(torch.randint(32, (), generator=generator))] = b * between(generator, 10.0, 28.0)
    return x[None], (weights[:, None] * unit(generator, 1, OUTPUTS))[None]


def worst(draw: Draw) -> Sample:
    """The draw that clipping by the Gram norm leaves largest."""
    samples = (Sample(seed, *draw(torch.Generator().manual_seed(seed))) for seed in range(NUM_TRIES))
    return max(samples, key=lambda sample: sample.excess)


def opacus_excess(sample: Sample, build: Callable[[int], nn.Module], mode: str) -> float:
    """Norm of what a step of opacus without noise leaves in `grad`, in units of the bound."""
    torch.manual_seed(0)
    module = build(sample.x.shape[-1])
    private, optimizer, *criteria, loader = PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.0),
        criterion=Product(),
        data_loader=DataLoader(TensorDataset(sample.x, sample.c), batch_size=1),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        loss_reduction="sum",
        poisson_sampling=False,
        grad_sample_mode=mode,
    )
    criterion = criteria[0] if criteria else Product()  # the mode "ghost" wraps the loss too
    for x, c in loader:
        criterion(private(x), c).backward()
        optimizer.step()
    return math.hypot(*(float(p.grad.double().norm()) for p in private.parameters())) / CLIP


def outcome(sample: Sample, build: Callable[[int], nn.Module], mode: str) -> float | str:
    """A measurement, or the first line of the error in its place."""
    try:
        return opacus_excess(sample, build, mode)
    except Exception as error:  # noqa: BLE001  whatever a foreign library raises is its answer
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def written(value: float | str) -> str:
    """A cell of the table."""
    return value if isinstance(value, str) else f"{value:.4g}"


CASES: tuple[tuple[str, Draw, Callable[[int], nn.Module]], ...] = (
    ("repeated tokens", repeated_tokens, once),
    ("a layer used twice", used_twice, Twice),
    ("overflow", overflow, once),
)


def main() -> None:
    """Search, measure, and print the table and a line of JSON."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    versions = {name: version(name) for name in PACKAGES}
    table = Table(title="Norm of what one sample adds, in units of the clipping bound (1 is allowed)")
    for column in ("sample", "T x d", "seed", "true norm", "float32 Gram norm²", "opacus ghost", "opacus hooks"):
        table.add_column(column, justify="left" if column == "sample" else "right")
    rows = []
    for name, draw, build in CASES:
        sample = worst(draw)
        measured = {f"opacus_{mode}": outcome(sample, build, mode) for mode in MODES}
        num_tokens, width = sample.x.shape[1:]
        figures: dict[str, float | str] = {"norm": sample.norm, "gram_norm_sq": sample.gram_norm_sq, **measured}
        table.add_row(name, f"{num_tokens} x {width}", str(sample.seed), *map(written, figures.values()))
        finite = {k: v if isinstance(v, str) or math.isfinite(v) else str(v) for k, v in figures.items()}
        rows.append({"sample": name, "seed": sample.seed, **finite})
    Console(width=120).print(table)
    print(json.dumps({"clip": CLIP, "versions": versions, "rows": rows}))


if __name__ == "__main__":
    main()
