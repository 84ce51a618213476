"""A model that is a function of its parts."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["Run"]


class Run(nn.Module):
    """The modules given by name, and a function of (self, *inputs) that runs them."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)
