"""Plant miscompilations: what runs is not the graph that was analysed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.validate.check import GraphCheck
from dpgraph.validate.interface import Interface, read_interface
from dpgraph.validate.op_by_op import Noise, run_op_by_op

Change = Callable[[JointGraph, Interface], Node]


def scale(node: Node, factor: float = 1.01) -> None:
    """Let all that reads a node read a multiple of it."""
    with node.graph.inserting_after(node):
        scaled = node.graph.call_function(torch.ops.aten.mul.Tensor, (node, factor))
    scaled.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)


def as_compiled(joint: JointGraph, *, rounding: int | None = None) -> Callable[..., Any]:
    """A joint graph as a function with a backward, like what a backend makes of it; perhaps with its own rounding."""
    interface = read_interface(joint)
    outputs = {str(i): node for i, node in interface.outputs.items()}
    written = {str(i): node for i, node in interface.new_values.items()}
    gradients = {str(i): node for i, node in interface.gradients.items() if node is not None}

    class Compiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:
            ctx.inputs = [x.detach().clone() if isinstance(x, Tensor) else x for x in inputs]
            found = run(ctx.inputs, [None] * len(interface.tangents), {**outputs, **written})
            for i, name in ((i, str(i)) for i in interface.new_values):
                inputs[i].detach().copy_(run(ctx.inputs, [None] * len(interface.tangents), {name: written[name]})[name])
            return tuple(found[str(i)] for i in sorted(interface.outputs))

        @staticmethod
        def backward(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
            found = run(ctx.inputs, tangents, gradients)
            return tuple(found.get(str(i)) for i in range(len(ctx.inputs)))

    def run(inputs: Sequence[Any], tangents: Sequence[Any], keep: Mapping[str, Node]) -> dict[str, Any]:
        def read(name: str) -> Any:
            if name in interface.inputs:
                return inputs[interface.inputs[name]]
            given = tangents[interface.tangents[name].output] if any(x is not None for x in tangents) else None
            fake = joint.nodes[name].meta["val"]
            rows = inputs[interface.inputs[joint.probe]].shape[0]
            shape = [size if isinstance(size, int) else rows for size in fake.shape]
            return torch.zeros(shape, dtype=fake.dtype) if given is None else given

        noise = None if rounding is None else Noise(0.0, rounding)
        return run_op_by_op(joint, read, {}, keep, noise)

    return Compiled.apply


def planted(check: GraphCheck, change: Change) -> GraphCheck:
    """A check of a graph in which a node was changed after the analysis."""
    wrong = check._joint.copy()
    scale(change(wrong, read_interface(wrong)))
    return replace_compiled(check, as_compiled(replace(wrong)))  # what it knew of its nodes is from before


def replace_compiled(check: GraphCheck, compiled: Callable[..., Any]) -> GraphCheck:
    """The same check of other code."""
    return GraphCheck(compiled, check._joint, check._captured, check._options, (), number=0)
