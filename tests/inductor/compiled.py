"""Many functions of tensors as one graph of Inductor's, as the passes put them into a backward.

They are traced as passes trace them, with a symbol for B, and compiled as the halves of a joint graph are: nothing
decomposes them once more.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, lowering, trace

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
    for x in inputs:
        if x.ndim and x.shape[0] == num_samples:
            torch._dynamo.mark_dynamic(x, 0)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)  # constants of the cases
    with mode:
        graph = trace(whole, fakes := [mode.from_tensor(x) for x in inputs])
    lowering._run_whole()
    with lowering._inside_inductor(fakes):
        compiled = lowering._compile_half(graph, fakes)
    results = compiled(inputs)
    return [list(own) for own in _split(results, counts)]


def _split(items: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [items[start : start + size] for start, size in zip(starts, sizes, strict=True)]
