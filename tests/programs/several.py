"""Small programs put side by side into one model, so that one compilation covers them all."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Program", "Several"]

Program = Callable[..., Tensor]
"""From a weight and the inputs of the model to outputs [B, *]."""


class Several(nn.Module):
    """Programs of the same inputs, each with a weight of its own, whose name is the program's; outputs [B, *].

    Args:
        programs: by name; each gets its own weight and the inputs of the model.
        shape: of each weight.
    """

    def __init__(self, programs: Mapping[str, Program], shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(len(programs))
        self.programs = dict(programs)
        for name in programs:
            weight = 0.5 + torch.rand(shape, dtype=torch.float64, generator=generator)
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, *inputs: Any) -> Tensor:
        """Outputs of the programs, one after the other."""
        found = [program(getattr(self, name), *inputs) for name, program in self.programs.items()]
        return torch.cat([y.flatten(1) for y in found], 1)
