"""Options that may change speed and memory, never a result."""

from dataclasses import dataclass
from typing import Literal, get_args

from dpgraph.checks import require_choice, require_share
from dpgraph.errors import ArgumentError

__all__ = ["CompileOptions", "check_options"]

Backend = Literal["inductor", "eager"]
NormStrategy = Literal["auto", "ghost", "materialise"]
Batch = Literal["any", "fixed"]
Verify = Literal["first", "never", "always"]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How the rewritten graph is run; no field changes what is computed.

    Attributes:
        backend: `"inductor"` compiles to native code; `"eager"` runs the rewritten graph op by op.
        norm_strategy: how per-sample norms of matrix products are taken: `"ghost"` from two Gram matrices,
            `"materialise"` from the per-sample gradients themselves, `"auto"` by estimated cost.
        memory_budget: share of the activations that the partitioner may save, in [0, 1]; 1 is PyTorch's default
            trade, less recomputes more. It is also the share of what is held until the clip factors are known.
        batch: `"any"` runs a batch with as many rows as it has; `"fixed"` gives every batch the rows of the first one,
            filled up with rows of weight 0, which lets Inductor replay CUDA graphs.
        verify: `"first"` compares each compiled graph with its operators run one by one before its first batch, on two
            samples of it (on all, if batches are fixed); `"always"` before every batch, on all its samples, for twice
            the time and the memory of an op-by-op run; `"never"` takes the backend's word.

    Raises:
        ArgumentError: a field has a value that is not listed, or `memory_budget` is outside [0, 1].
    """

    backend: Backend = "inductor"
    norm_strategy: NormStrategy = "auto"
    memory_budget: float = 1.0
    batch: Batch = "any"
    verify: Verify = "first"

    def __post_init__(self) -> None:
        listed_fields = (("backend", Backend), ("norm_strategy", NormStrategy), ("batch", Batch), ("verify", Verify))
        for field, listed in listed_fields:
            require_choice(
                f"CompileOptions.{field}",
                getattr(self, field),
                get_args(listed),
                why="an option that is not understood would be ignored in silence",
            )
        saved = "it is the share of the activations that may be saved"
        require_share("CompileOptions.memory_budget", self.memory_budget, why=saved)


def check_options(options: object) -> CompileOptions:
    """The options, or those of None.

    Raises:
        ArgumentError: it is something else.
    """
    if options is None:
        return CompileOptions()
    if not isinstance(options, CompileOptions):
        raise ArgumentError(
            f"options is {options!r}",
            why="what is not understood would be ignored in silence",
            fix='give CompileOptions(...), such as CompileOptions(backend="eager")',
        )
    return options
