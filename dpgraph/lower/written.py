"""What the forward writes lies in no memory that it reads under another name."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dpgraph.capture.joint import Input, Sample
from dpgraph.errors import ArgumentError
from dpgraph.lower.forward import Forward
from dpgraph.parameter_memory import overlapping

__all__ = ["check_written"]


def check_written(forward: Forward, inputs: Sequence[Any]) -> None:
    """Pass if a graph may write into these inputs: when it was captured no other one shared their memory.

    Args:
        forward: the graph.
        inputs: of a run.

    Raises:
        ArgumentError: an input that is written is a part of another one.
    """
    if not forward.written:
        return
    tensors = ((i, inputs[i]) for i in forward.inputs.values() if isinstance(inputs[i], Tensor))
    for pair in overlapping(tensors):
        if written := [i for i in pair if i in forward.written]:
            names = [_name(forward.role(i)) for i in sorted(pair, key=lambda i: i != written[0])]
            raise ArgumentError(
                f"the forward writes into {names[0]}, which shares memory with {names[1]} in this call",
                why="the graph was captured where they were apart, and would go on with what was there before",
                fix=f"pass {names[0]}.clone(), or keep the two apart as in the first call",
            )


def _name(role: Input) -> str:
    name = getattr(role, "name", "")
    return f"the argument {name!r}" if isinstance(role, Sample) else repr(name)
