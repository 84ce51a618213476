"""How a program is written in which one sample influences another one's gradient, and a twin that is sound.

The first line on which samples meet bears the comment `# mixes`; the error must name it. That is where the user has to
change something: a sum over the batch, say, and not the line that reads the sum. Each program is a function of the
module `m`, which owns what a program may train or write to, and of x [B, ...]. `h` is what the trained layer made of x.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["PAIRS", "Pair", "Program", "pair"]

Function = Callable[[nn.Module, Tensor], Tensor]


class Program(nn.Module):
    """A trained layer [..., 4] -> [..., 4], and further modules and buffers that a program asks for."""

    def __init__(self, function: Function, **parts: Callable[[], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function
        for name in parts:
            if name not in function.__code__.co_names:
                continue
            part = parts[name]()
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@dataclass(frozen=True)
class Pair:
    """A program that must be refused and one that must be exact.

    Attributes:
        name: what mixes.
        unsound, sound: the programs.
        shape: of one sample.
        parts: modules and buffers of the programs.
    """

    name: str
    unsound: Function
    sound: Function
    shape: tuple[int, ...] = (4,)
    parts: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


PAIRS: list[Pair] = []


def pair(name: str, shape: tuple[int, ...] = (4,), **parts: Callable[[], Any]) -> Callable[[type], type]:
    """Add the pair of functions `unsound` and `sound` of a class."""

    def add(programs: Any) -> type:
        PAIRS.append(Pair(name, programs.unsound, programs.sound, shape, parts))
        return programs

    return add
