"""Many functions of tensors as one graph of Inductor's, as the passes put them into a backward.

They are traced as passes trace them, with a symbol for B, and compiled as the halves of a joint graph are: nothing
decomposes them once more.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, compile_part, trace

__all__ = ["compile_together"]

Call = tuple[Callable[..., Sequence[Tensor]], Sequence[Tensor]]


def compile_together(calls: Sequence[Call], num_samples: int) -> list[list[Tensor]]:
    """What each function makes of its tensors, all of them in one compiled graph.

    Args:
        calls: functions and their tensors.
        num_samples: B; every first axis of this size is taken for that of the samples, and captured as a symbol.
    """
    sizes = [len(tensors) for _, tensors in calls]
    counts: list[int] = []

    def whole(*tensors: Tensor) -> list[Tensor]:
        counts.clear()
        results: list[Tensor] = []
        for (function, _), own in zip(calls, _split(tensors, sizes), strict=True):
            made = list(function(*own))
            counts.append(len(made))
            results += made
        return results

    inputs = [x.clone() for _, tensors in calls for x in tensors]
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)  # constants of the cases
    fakes = [_fake(mode, x, num_samples) for x in inputs]
    with mode:
        graph = trace(whole, fakes)
    results = compile_part(graph)(inputs)
    return [list(own) for own in _split(results, counts)]


def _fake(mode: FakeTensorMode, x: Tensor, num_samples: int) -> Tensor:
    """One symbol for B, and numbers for all other sizes."""
    of_samples = [i == 0 and size == num_samples for i, size in enumerate(x.shape)]
    sizes = [DimDynamic.DUCK if own else DimDynamic.STATIC for own in of_samples]
    return mode.from_tensor(x, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


def _split(items: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [items[start : start + size] for start, size in zip(starts, sizes, strict=True)]
