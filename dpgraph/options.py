"""Options that may change speed and memory, never a result."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dpgraph.errors import ArgumentError

__all__ = ["CompileOptions"]

Backend = Literal["inductor", "eager"]
NormStrategy = Literal["auto", "ghost", "materialise"]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How the rewritten graph is run; no field changes what is computed.

    Attributes:
        backend: `"inductor"` compiles to native code; `"eager"` runs the rewritten graph op by op.
        norm_strategy: how per-sample norms of matrix products are taken: `"ghost"` from two Gram matrices,
            `"materialise"` from the per-sample gradients themselves, `"auto"` by estimated cost.
        memory_budget: share of the activations that the partitioner may save, in [0, 1]; 1 is PyTorch's default
            trade, less recomputes more.

    Raises:
        ArgumentError: a field has a value that is not listed, or `memory_budget` is outside [0, 1].
    """

    backend: Backend = "inductor"
    norm_strategy: NormStrategy = "auto"
    memory_budget: float = 1.0

    def __post_init__(self) -> None:
        for field, choices in (("backend", get_args(Backend)), ("norm_strategy", get_args(NormStrategy))):
            if getattr(self, field) not in choices:
                raise ArgumentError(
                    f"CompileOptions.{field} is {getattr(self, field)!r}",
                    why="an option that is not understood would be ignored in silence",
                    fix=f"choose one of {', '.join(map(repr, choices))}",
                )
        if not (math.isfinite(self.memory_budget) and 0 <= self.memory_budget <= 1):
            raise ArgumentError(
                f"CompileOptions.memory_budget is {self.memory_budget!r}",
                why="it is the share of the activations that may be saved",
                fix="give a number from 0 to 1",
            )
