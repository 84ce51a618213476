"""A step of a random program, and tables of steps by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Step", "Steps", "free"]

Forward = Callable[[nn.Module, Tensor], Tensor]


class Step(nn.Module):
    """A function of (self, h), and the modules and parameters that it uses."""

    def __init__(self, forward: Forward, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for key, part in parts.items():
            setattr(self, key, part)

    def forward(self, h: Tensor) -> Tensor:
        return self.run(self, h)


class Steps(dict[str, Callable[..., Step]]):
    """What makes each step, by name. A program holds names alone, so that it can be printed, pickled and read."""

    def add(self, make: Callable[..., Step]) -> Callable[..., Step]:
        """Enter a function under its own name."""
        assert make.__name__ not in self, make.__name__
        self[make.__name__] = make
        return make


def free(*shape: int) -> nn.Parameter:
    """A parameter that no module owns."""
    return nn.Parameter(torch.randn(shape))
