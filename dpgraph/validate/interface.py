"""Which input of a joint graph is which of the captured graph, and which output is whose value."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.torch_compat import (
    GradAOTOutput,
    InputMutationAOTOutput,
    IntermediateBaseAOTOutput,
    PlainAOTInput,
    PlainAOTOutput,
    TangentAOTInput,
)

__all__ = ["Interface", "TangentOf", "read_interface"]


@dataclass(frozen=True, slots=True)
class TangentOf:
    """A tangent of an output of the captured graph; with `base`, of the value whose views several outputs are."""

    output: int
    base: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """Positions in the captured graph, for the placeholders and outputs of the joint one.

    Attributes:
        inputs: placeholder's name -> position among the inputs.
        tangents: placeholder's name -> what it is the tangent of; None for what no caller can have a gradient of.
        outputs: position among the outputs -> the node.
        gradients: position of an input -> the node of its gradient, None if it gets none.
        new_values: position of an input that is written -> the node of its new value.
    """

    inputs: Mapping[str, int]
    tangents: Mapping[str, TangentOf | None]
    outputs: Mapping[int, Node]
    gradients: Mapping[int, Node | None]
    new_values: Mapping[int, Node]


def read_interface(joint: JointGraph) -> Interface:
    """Read the descriptors that AOTAutograd left at placeholders and outputs, which passes keep."""
    inputs: dict[str, int] = {}
    tangents: dict[str, TangentOf | None] = {}
    by_name: dict[str, int] = {}
    for node in joint.graph.find_nodes(op="placeholder"):
        match node.meta["desc"]:
            case PlainAOTInput(idx=i):
                inputs[node.name] = by_name[node.name] = i
            case TangentAOTInput(output=PlainAOTOutput(idx=i)):
                tangents[node.name] = TangentOf(i, base=False)
            case TangentAOTInput(output=IntermediateBaseAOTOutput(base_of=PlainAOTOutput(idx=i))):
                tangents[node.name] = TangentOf(i, base=True)
            case _:
                tangents[node.name] = None
    outputs: dict[int, Node] = {}
    gradients: dict[int, Node | None] = {}
    new_values = _written_in_place(joint, by_name)
    for descriptor, node in zip(joint.graph.output_node().meta["desc"], joint.outputs, strict=True):
        match descriptor:
            case PlainAOTOutput(idx=i) if isinstance(node, Node):
                outputs[i] = node
            case GradAOTOutput(grad_of=PlainAOTInput(idx=i)):
                gradients[i] = node
            case InputMutationAOTOutput(mutated_input=PlainAOTInput(idx=i)) if isinstance(node, Node):
                new_values[i] = node
            case _:
                pass
    return Interface(*(MappingProxyType(x) for x in (inputs, tangents, outputs, gradients, new_values)))


def _written_in_place(joint: JointGraph, inputs: Mapping[str, int]) -> dict[int, Node]:
    """Inputs that the graph itself writes, by a last `copy_`; all else in a joint graph is without side effects."""
    return {
        inputs[target.name]: node
        for node in joint.graph.nodes
        if is_write(node) and isinstance(target := node.args[0], Node) and target.name in inputs
    }


def is_write(node: Node) -> bool:
    """Whether a node writes its first operand."""
    return node.op == "call_function" and str(node.target) == "aten.copy_.default"
