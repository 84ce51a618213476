"""What forward assigns to objects that outlive the call: attributes, lists, dicts, variables of an enclosing scope."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from dpgraph.capture.containers import find_leaves
from dpgraph.capture.joint import Write
from dpgraph.capture.place import name_of_source, parse_line
from dpgraph.capture.trace import CallTensors
from dpgraph.torch_compat import Written, hooked_inputs, written_values

__all__ = ["find_writes"]


def find_writes(gm: GraphModule, tensors: CallTensors, batch: sympy.Symbol) -> tuple[Write, ...]:
    """Every assignment of the capture that is under way; called from the backend.

    Args:
        gm: the graph that was captured.
        tensors: those that the call may use.
        batch: the symbol of the number of samples.
    """
    outputs: list[Any] = list(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    positions = {x: i for i, x in enumerate(outputs) if isinstance(x, Node)}
    # numbers leave the graph as tensors
    numbers: dict[Any, int] = {x.args[0]: i for x, i in positions.items() if x.target is torch.scalar_tensor}
    hooks = (Write(name_of_source(name), (), ("a hook on the gradient of an input",), None) for name in hooked_inputs())
    return (*(_resolve(written, positions | numbers, tensors, batch) for written in written_values()), *hooks)


def _resolve(written: Written, positions: Mapping[Node, int], tensors: CallTensors, batch: sympy.Symbol) -> Write:
    returned, unproved = [], list(_unproved(written.objects, tensors))
    for node in written.nodes:
        if _counts(node.meta.get("example_value"), batch):
            unproved.append("the number of samples in the batch")
        elif node in positions:
            returned.append(positions[node])
        elif not (node.op == "placeholder" and isinstance(node.meta.get("example_value"), torch.SymInt)):
            unproved.append(f"`{node.format_node()}`")
    return Write(name_of_source(written.target), tuple(returned), tuple(unproved), parse_line(written.trace))


def _unproved(objects: Sequence[Any], tensors: CallTensors) -> Iterator[str]:
    """Tensors that are not computed in the graph, and are not known to hold no samples."""
    for leaf in find_leaves(list(objects)):
        if id(leaf) in tensors.samples:
            yield f"the input {tensors.samples[id(leaf)].name!r}"
        elif isinstance(leaf, Tensor) and id(leaf) not in tensors.parameters and id(leaf) not in tensors.constants:
            yield "a tensor that is no parameter, no buffer and no argument of the call"


def _counts(value: object, batch: sympy.Symbol) -> bool:
    return isinstance(value, (torch.SymInt, torch.SymFloat)) and batch in value.node.expr.free_symbols
