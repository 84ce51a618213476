"""How deep the sums in torch's matrix products are on this machine: `python -m tools.depth_of_sums`.

    python -m tools.depth_of_sums                               some sizes of weighted sums, sum_t u_t v_t^T
    python -m tools.depth_of_sums --positions 65536 --rows 768 --columns 3072 --device cuda

A sum in floating point is a tree of additions, whose shape a library does not tell. It shows in results: with a huge
number M at one place, -M at another, and ones elsewhere, every one that meets M before M meets -M is lost. So the sum
is the number of terms outside of the smallest part of the tree that holds both places; and of one place, as many
different parts show as additions lie between it and the root. Source: Xie, Gao and Xue 2024 (FPRev), arXiv:2411.00442.

`sums.WITHIN_PART` takes it that there are no more than 256 within a backward, and `forms.BLOCK` no more than 512 among
the terms of one sample. What is on the way before it is added (fused multiplications) rounds no more than once.
"""

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from dpgraph.sums import WITHIN_PART

__all__ = ["depth_of"]

HUGE = 2.0**60
SIZES = [(1024, 768, 768), (4096, 768, 3072), (8192, 768, 768), (16384, 128, 512)]


def depth_of(positions: int, rows: int, columns: int, device: torch.device | None = None) -> int:
    """The most additions between a term and the sum, in [rows, T] @ [T, columns], for terms at `rows` places."""
    places = torch.linspace(0, positions - 1, rows, device=device).long()
    u = torch.ones(positions, rows, device=device)
    u[places, torch.arange(rows, device=device)] = HUGE
    parts: list[torch.Tensor] = []
    for start in range(0, positions, columns):
        others = torch.arange(start, min(start + columns, positions), device=device)
        v = torch.ones(positions, columns, device=device)
        v[others, torch.arange(len(others), device=device)] = -HUGE
        inside = positions - (u.mT @ v)[:, : len(others)]
        parts.append(torch.where(places[:, None] == others, torch.nan, inside))
    ordered = torch.cat(parts, 1).sort(1).values
    # NaN, of a place with itself, comes last and equals nothing
    different = (ordered[:, 1:] != ordered[:, :-1]) & ~ordered[:, 1:].isnan()
    return int((1 + different.sum(1)).max())


def main(
    positions: Annotated[int | None, typer.Option(min=2, help="T, of all samples of a backward")] = None,
    rows: Annotated[int, typer.Option(min=17, help="outputs of the layer")] = 768,
    columns: Annotated[int, typer.Option(min=17, help="inputs of the layer")] = 768,
    device: Annotated[str, typer.Option(help="where")] = "cpu",
) -> None:
    """Print the depths, and whether the model holds."""
    console = Console(highlight=False)
    table = Table("positions", "rows", "columns", "additions", title=f"torch {torch.__version__} on {device}, float32")
    depths = []
    for sizes in SIZES if positions is None else [(positions, rows, columns)]:
        depths.append(depth_of(*sizes, torch.device(device)))
        table.add_row(*map(str, sizes), str(depths[-1]))
    console.print(table)
    said = (
        "holds" if max(depths) <= WITHIN_PART else "does not hold: give max_samples and max_parts that are larger by it"
    )
    console.print(f"the model of {WITHIN_PART} within a backward {said}")


if __name__ == "__main__":
    typer.run(main)
