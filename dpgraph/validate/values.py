"""Names for everything that a compiled graph computes, and what each should be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import Parameter
from dpgraph.validate.as_compiled import Observed
from dpgraph.validate.interface import Interface
from dpgraph.validate.samples import Captured

__all__ = ["Value", "name_values"]

NORMS = "the norms"


@dataclass(frozen=True, slots=True)
class Value:
    """Something that a graph computes, or leaves.

    Attributes:
        found: as the compiled graph has it; None is a gradient that is not there.
        node: of the joint graph, that computes it.
        kept: what it should be if no node computes it: an input that is not written stays as it is.
        is_gradient: of a parameter or an input.
        parameter: name of the parameter whose gradient it is.
    """

    found: Tensor | None
    node: Node | None
    kept: Tensor | None = None
    is_gradient: bool = False
    parameter: str | None = None


def name_values(
    observed: Observed, captured: Captured, interface: Interface, inputs: Sequence[Any]
) -> Mapping[str, Value]:
    """All values by name: outputs, gradients, norms, and what was left in tensors that could be written."""
    values: dict[str, Value] = {}
    for i, x in observed.outputs.items():
        if i in interface.outputs:
            computed = interface.outputs[i]
            written = interface.new_values.get(interface.inputs.get(computed.name, -1))  # an input, as it is left
            values[f"output {i}"] = Value(x, written or computed)
    for i, gradient in observed.gradients.items():
        role, node = captured.roles[i], interface.gradients.get(i)
        if i == captured.probe:
            values[NORMS] = Value(gradient, node)
        elif isinstance(role, Parameter):
            values[f"the gradient of {role.name}"] = Value(gradient, node, is_gradient=True, parameter=role.name)
        else:
            values[f"the gradient of {captured.names[i]}"] = Value(gradient, node, is_gradient=True)
    for half, left in (("forward", observed.after_forward), ("backward", observed.after_backward)):
        for i, x in left.items():
            values[f"{captured.names[i]} after the {half}"] = Value(
                x, interface.new_values.get(i), kept=inputs[i].detach()
            )
    return values
