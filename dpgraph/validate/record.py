"""What a validation compared, for reports and certificates."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Validation"]


@dataclass(frozen=True, slots=True)
class Validation:
    """One compiled graph that was compared with its operators run one by one, and found to agree.

    Attributes:
        graph: which of the module's graphs, in the order of their capture, from 0.
        backend: what compiled it.
        num_batches: how many batches were compared.
        num_samples: on how many samples, in the last of them.
        compared: what was compared: outputs, gradients by parameter, norms, buffers after either half.
        largest_difference: the largest relative difference in Euclidean norm of one of these, but for `rounding`.
            Gradients that are tiny beside the largest are measured against that.
        tolerance: what was let pass as rounding.
        rounding: what differed by more, and moves as much when the inputs are rounded differently: it is all rounding.
        left_out: what could not be compared, with the reason.
        seconds: what all comparisons took, compiling kernels for random numbers included.
    """

    graph: int
    backend: str
    num_batches: int
    num_samples: int
    compared: tuple[str, ...]
    largest_difference: float
    tolerance: float
    rounding: tuple[str, ...]
    left_out: Mapping[str, str]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether everything that the graph computes was compared."""
        return bool(self.compared) and not self.left_out

    def __str__(self) -> str:
        lines = [
            f"graph {self.graph} ({self.backend}): {len(self.compared)} values on {self.num_samples} samples, "
            f"largest relative difference {self.largest_difference:.1e} of {self.tolerance:.1e}, {self.seconds:.2f} s"
        ]
        if self.rounding:
            lines.append(f"  all rounding: {', '.join(self.rounding)}")
        return "\n".join([*lines, *(f"  not compared: {name}, since {why}" for name, why in self.left_out.items())])
