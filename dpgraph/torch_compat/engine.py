"""What is under way around a backward: autograd's engine, and autocast."""

from typing import Any

import torch

__all__ = ["backward_under_way", "will_accumulate", "without_autocast"]


def will_accumulate(node: Any) -> bool:
    """Whether the backward under way adds to the gradient of the leaf that `node` accumulates for.

    It does not where `backward(inputs=...)` leaves the leaf out, and not in `torch.autograd.grad`, for which torch
    raises if the leaf is among those asked for.
    """
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        return False


def backward_under_way() -> int:
    """The number of the backward under way; -1 if there is none."""
    return int(torch._C._current_graph_task_id())


def without_autocast() -> Any:
    """Within, operators run in the dtypes of their operands: a traced graph holds its casts itself."""
    return torch._C._DisableAutocast()
