"""The kernel of the ghost norm against other ways, by length of the samples: `python -m tools.bench.norm_kernel`.

    python -m tools.bench.norm_kernel                                1k to 32k positions, bfloat16
    python -m tools.bench.norm_kernel --dtype float32 --rows 4096 --columns 1024 --batch 1

For a GPU. Of samples u [B, T, p] and v [B, T, d] it takes |sum_t u_t v_t^T|^2 by the kernel, by two Gram matrices and
from the gradient itself, the latter two through `torch.compile`, which fuses what follows their products. Memory is
what the allocator holds at most on top of the operands. Every result is held against one in float64. Writes
norm_kernel.json.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dpgraph.gradients.ghost_norm import HAS_KERNEL, blocked_norm_sq
from dpgraph.gradients.gram import gram_norm_sq
from dpgraph.memory.measure import measure_peak
from tools.bench.measure import time_in_turns
from tools.bench.record import Environment

__all__ = ["KernelRecord", "Measured", "Operands", "measure", "show"]

Way = Callable[[Tensor, Tensor], Tensor]
KERNEL, TWO_GRAMS, MATERIALISED = "kernel", "two Gram matrices", "gradient"


class Dtype(str, Enum):
    """Of the operands."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Operands:
    """Sizes of u [B, T, p] and v [B, T, d], and their dtype."""

    batch: int
    rows: int
    columns: int
    dtype: Dtype

    def draw(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Random u and v of that many positions."""
        dtype = getattr(torch, self.dtype.value)
        u, v = (torch.randn(self.batch, length, size, device=device) for size in (self.rows, self.columns))
        return u.to(dtype), v.to(dtype)


@dataclass(frozen=True, slots=True)
class Measured:
    """One way at one length.

    Attributes:
        seconds: of a call, by round; empty if there was not the memory for it.
        added_bytes: the most that is held on top of the operands; None if not measured.
        error: the largest relative one among the samples.
    """

    way: str
    length: int
    seconds: tuple[float, ...] = ()
    added_bytes: int | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """A run of the command."""

    environment: Environment
    operands: Operands
    measured: tuple[Measured, ...]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def at(self, way: str, length: int) -> Measured:
        """What was measured of one way at one length."""
        return next(m for m in self.measured if (m.way, m.length) == (way, length))

    @property
    def lengths(self) -> list[int]:
        """Lengths that were measured, ascending."""
        return sorted({m.length for m in self.measured})

    @property
    def ways(self) -> list[str]:
        """Ways in the order in which they were measured."""
        return list(dict.fromkeys(m.way for m in self.measured))

    @property
    def slower_at(self) -> list[int]:
        """Lengths at which two Gram matrices were no slower than the kernel."""
        pairs = {length: [self.at(way, length).seconds for way in (KERNEL, TWO_GRAMS)] for length in self.lengths}
        return [n for n, (k, g) in pairs.items() if not k or (g and statistics.median(k) >= statistics.median(g))]

    @property
    def kernel_bytes(self) -> tuple[int, int] | None:
        """The least and the most that the kernel added to its operands."""
        found = [m.added_bytes for m in self.measured if m.way == KERNEL and m.added_bytes is not None]
        return (min(found), max(found)) if found else None


def _by_kernel(u: Tensor, v: Tensor) -> Tensor:
    norm_sq: Tensor = torch.ops.dpgraph.ghost_norm(u, v)[0]
    return norm_sq


def _from_gradient(u: Tensor, v: Tensor) -> Tensor:
    return (u.mT @ v).float().square().sum((1, 2))


def measure(operands: Operands, length: int, rounds: int, steps: int, device: torch.device) -> list[Measured]:
    """All ways at one length; each is called once before it counts."""
    torch.manual_seed(0)
    torch.compiler.reset()
    u, v = operands.draw(length, device)
    expected = blocked_norm_sq(u.double(), v.double())[0]
    ways: Mapping[str, Way] = {
        KERNEL: _by_kernel,
        TWO_GRAMS: torch.compile(gram_norm_sq, dynamic=False),
        MATERIALISED: torch.compile(_from_gradient, dynamic=False),
    }
    checked = {name: _check(way, u, v, expected) for name, way in ways.items()}
    fitting = {name: _call(way, u, v) for name, way in ways.items() if checked[name] is not None}
    seconds = time_in_turns(fitting, rounds, steps, device)
    return [Measured(way, length, seconds.get(way, ()), *(checked[way] or ())) for way in ways]


def _check(way: Way, u: Tensor, v: Tensor, expected: Tensor) -> tuple[int | None, float] | None:
    """Bytes that are added and the error, after a first call that does not count; None if there is not the memory."""
    try:
        error = ((way(u, v) - expected).abs() / expected).max().item()
        return _added_bytes(way, u, v), error
    except torch.OutOfMemoryError:
        return None


def _call(way: Way, u: Tensor, v: Tensor) -> Callable[[], None]:
    def call() -> None:
        way(u, v)

    return call


def _added_bytes(way: Way, u: Tensor, v: Tensor) -> int | None:
    return measure_peak(lambda: way(u, v), u.device) if u.device.type == "cuda" else None


def show(record: KernelRecord, console: Console) -> None:
    """Print times, memory and errors by length, and what comes out of them."""
    env, sizes = record.environment, record.operands
    console.print(f"{env.device}, torch {env.versions.get('torch', '')}, commit {env.commit}, {env.date}")
    table = Table(title=f"B = {sizes.batch}, p = {sizes.rows}, d = {sizes.columns}, {sizes.dtype.value}")
    table.add_column("T", justify="right")
    for way in record.ways:
        for column in (f"{way}, ms", "MB", "error"):
            table.add_column(column, justify="right")
    for length in record.lengths:
        table.add_row(str(length), *(cell for way in record.ways for cell in _cells(record.at(way, length))))
    console.print(table)
    if record.kernel_bytes is not None:
        least, most = record.kernel_bytes
        console.print(f"the kernel added {least} to {most} bytes to its operands")
    where = f"not faster at T = {', '.join(map(str, slower))}" if (slower := record.slower_at) else "faster everywhere"
    console.print(f"against two Gram matrices the kernel was {where}")


def _cells(measured: Measured) -> Sequence[str]:
    if not measured.seconds:
        return "out of memory", "", ""
    megabytes = "" if measured.added_bytes is None else f"{measured.added_bytes / 1e6:.2f}"
    return f"{1e3 * statistics.median(measured.seconds):.3f}", megabytes, f"{measured.error:.0e}"


def main(
    lengths: Annotated[str, typer.Option(help="positions")] = "1024,2048,4096,8192,16384,32768",
    batch: Annotated[int, typer.Option(min=1, help="samples")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="outputs of the layer, p")] = 1024,
    columns: Annotated[int, typer.Option(min=1, help="inputs of the layer, d")] = 1024,
    dtype: Annotated[Dtype, typer.Option(help="of the operands")] = Dtype.bfloat16,
    rounds: Annotated[int, typer.Option(min=1, help="turns of each way; medians count")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="calls of a turn")] = 10,
    out: Annotated[Path, typer.Option(help="folder for the record")] = Path("out/bench"),
) -> None:
    """Measure on a GPU, print the table, and write norm_kernel.json."""
    if not (torch.cuda.is_available() and HAS_KERNEL):
        raise typer.BadParameter(
            "the kernel needs a GPU, and torch with Triton; neither time nor memory tell elsewhere"
        )
    console = Console(width=max(Console().width, 120), highlight=False)
    device = torch.device("cuda")
    operands = Operands(batch, rows, columns, dtype)
    environment = Environment.current(device, getattr(torch, dtype.value), torch.get_num_threads())
    out.mkdir(parents=True, exist_ok=True)
    measured: list[Measured] = []
    for length in sorted(map(int, lengths.split(","))):
        measured += measure(operands, length, rounds, steps, device)
        record = KernelRecord(environment, operands, tuple(measured))
        (out / "norm_kernel.json").write_text(record.to_json(), "utf-8")
    show(record, console)
    console.print(f"wrote {out / 'norm_kernel.json'}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
