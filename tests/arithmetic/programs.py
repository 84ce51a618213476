"""Programs in which an attacker chooses both factors of every product: x and the gradient c that comes back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["COLUMNS", "LENGTH", "PROGRAMS", "ROWS", "Programs", "Sample"]

LENGTH, ROWS, COLUMNS = 16, 4, 12


@dataclass(frozen=True)
class Sample:
    """One record: x [T, COLUMNS], c [T, ROWS] and ids [T] in [0, ROWS)."""

    x: Tensor
    c: Tensor
    ids: Tensor


class Programs(nn.Module):
    """losses [B] = sum over the programs, and over positions, of c times what one makes of x, the ids and its weight.

    Each has a weight of its own, which is a group of its own if parameters are: one graph serves to attack all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.zeros(shape) for shape, _ in PROGRAMS.values()])

    def forward(self, x: Tensor, c: Tensor, ids: Tensor) -> Tensor:
        """Losses [B] of x [B, T, COLUMNS], c [B, T, ROWS] and ids [B, T]."""
        functions = [function for _, function in PROGRAMS.values()]
        losses = [function(x, c, ids, w) for function, w in zip(functions, self.weights, strict=True)]
        return torch.stack(losses).sum(0)


def _once(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (F.linear(x, w) * c).sum((1, 2))


def _of_one_position(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (F.linear(x[:, 0], w) * c[:, 0]).sum(1)


def _twice(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    halves = zip(x.chunk(2, 1), c.chunk(2, 1), strict=True)
    first, second = ((F.linear(of_x, w) * of_c).sum((1, 2)) for of_x, of_c in halves)
    return first + second


def _as_table(x: Tensor, c: Tensor, ids: Tensor, w: Tensor) -> Tensor:
    return (F.embedding(ids, w) * x).sum((1, 2))


def _tied(x: Tensor, c: Tensor, ids: Tensor, w: Tensor) -> Tensor:
    read = (F.embedding(ids[:, :8], w) * x[:, :8]).sum((1, 2))
    return read + (F.linear(x[:, 8:], w) * c[:, 8:]).sum((1, 2))


def _convolved(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (F.conv1d(x.mT, w, padding=1) * c.mT).sum((1, 2))


def _in_groups(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (F.conv1d(x.mT, w, padding=1, groups=2) * c.mT).sum((1, 2))


def _scale(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (x[..., :ROWS] * c * w).sum((1, 2))


def _seen_otherwise(x: Tensor, c: Tensor, _: Tensor, w: Tensor) -> Tensor:
    return (F.linear(x, w) * c).sum((1, 2)) + (F.linear(c, w.view(COLUMNS, ROWS)) * x).sum((1, 2))


PROGRAMS = {
    "a product": ((ROWS, COLUMNS), _once),
    "a product of one position": ((ROWS, COLUMNS), _of_one_position),
    "a weight used twice": ((ROWS, COLUMNS), _twice),
    "a table": ((ROWS, COLUMNS), _as_table),
    "a table and a product": ((ROWS, COLUMNS), _tied),
    "a convolution": ((ROWS, COLUMNS, 3), _convolved),
    "a convolution in groups": ((ROWS, COLUMNS // 2, 3), _in_groups),
    "a scale": ((ROWS,), _scale),
    "a weight in two shapes": ((ROWS, COLUMNS), _seen_otherwise),
}
