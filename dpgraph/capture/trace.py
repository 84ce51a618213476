"""From the graph that Dynamo hands to a backend to a `JointGraph`: who is who among its inputs and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from dpgraph.capture.canonical import canonicalise
from dpgraph.capture.in_place import refuse_writes_in_place
from dpgraph.capture.joint import Constant, Input, JointGraph, Parameter, Sample, Tangent, Write
from dpgraph.capture.place import name_of_source
from dpgraph.errors import UnsupportedProgramError
from dpgraph.torch_compat import (
    AOTOutput,
    GradAOTOutput,
    InputMutationAOTOutput,
    InputSource,
    PlainAOTInput,
    PlainAOTOutput,
    TangentAOTInput,
    current_fake_mode,
)

__all__ = ["CallTensors", "GraphInputs", "check_constants", "find_inputs", "read_joint", "require_all_gradients"]


@dataclass(frozen=True, slots=True)
class CallTensors:
    """The tensors that a call may use, by their ids.

    Attributes:
        parameters: names of the parameters of the model.
        constants: names of buffers, of the loss's tensors, and of arguments that all samples share.
        samples: batch axis and name of each argument that holds samples.
        probe: the probe.
        num_samples: how many of the rows are samples; the others are there to fill up.
    """

    parameters: Mapping[int, str]
    constants: Mapping[int, str]
    samples: Mapping[int, Sample]
    probe: Tensor
    num_samples: int

    @property
    def is_padded(self) -> bool:
        """Whether some rows are there to fill up."""
        return self.num_samples != len(self.probe)


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """Roles of the inputs of the graph that Dynamo captured, by position."""

    roles: tuple[Input, ...]
    probe: int


def find_inputs(inputs: Sequence[Any], sources: Sequence[InputSource], call: CallTensors) -> GraphInputs:
    """Tell the inputs apart by identity: they are the very tensors of the model and of the call.

    Args:
        inputs: what Dynamo gives as example inputs.
        sources: where it has them from.
        call: the tensors that a graph may use.

    Raises:
        UnsupportedProgramError: a tensor is none of these.
    """
    roles = tuple(_role_of(x, source, call) for x, source in zip(inputs, sources, strict=True))
    return GraphInputs(roles, next(i for i, x in enumerate(inputs) if x is call.probe))


def check_constants(
    inputs: Sequence[Any], sources: Sequence[InputSource], found: GraphInputs, call: CallTensors
) -> list[Tensor]:
    """The tensors that a captured graph takes for the same for all samples, if they still are that.

    Dynamo's guards compare sizes and dtypes: another tensor in the same attribute, or other values in it, pass them.

    Raises:
        UnsupportedProgramError: a tensor is none of the model and the call any more.
    """
    constants = [
        (x, source)
        for x, source, role in zip(inputs, sources, found.roles, strict=True)
        if isinstance(role, Constant) and isinstance(x, Tensor) and not source.is_number
    ]
    for x, source in constants:
        if not isinstance(_role_of(x, source, call), Constant):
            raise _past_the_arguments(x, name_of_source(source.name))
    return [x for x, _ in constants]


def _role_of(x: Any, source: InputSource, call: CallTensors) -> Input:
    if id(x) in call.parameters:
        return Parameter(call.parameters[id(x)])
    if x is call.probe:
        return Sample(0, "probe")
    if id(x) in call.samples:
        return call.samples[id(x)]
    if not isinstance(x, Tensor) or source.is_number:
        return Constant()
    name = call.constants.get(id(x)) or name_of_source(source.name)
    if x.requires_grad:
        raise UnsupportedProgramError(
            f"the forward uses {name!r}, a tensor of shape {list(x.shape)} that requires grad and is no parameter",
            why="its gradient would leave the module unclipped",
            fix="register it as a Parameter of the model, or detach it",
        )
    if id(x) in call.constants or isinstance(x, nn.Parameter):
        return Constant(name)
    raise _past_the_arguments(x, name)


def _past_the_arguments(x: Tensor, name: str) -> UnsupportedProgramError:
    return UnsupportedProgramError(
        f"the forward uses {name!r}, a tensor of shape {list(x.shape)} that is no parameter, no buffer and no argument "
        "of the call",
        why="what reaches the graph past the arguments may hold samples, and would be taken for the same for all",
        fix="pass it as an argument (batch_dims={name: None} if all samples share it); if it holds no data of samples, "
        "it can also be a buffer of the model or of the loss: register_buffer(name, tensor, persistent=False)",
    )


def require_all_gradients(inputs: Sequence[Any], found: GraphInputs) -> list[Any]:
    """The inputs, with a fake parameter that requires grad in the place of every floating parameter.

    So the joint graph holds the gradients of all of them, and pruning is a pass whose effect can be measured.
    """
    mode = current_fake_mode()

    def fake(x: Any, role: Input) -> Any:
        if not isinstance(role, Parameter) or not x.dtype.is_floating_point:
            return x
        return nn.Parameter(mode.from_tensor(x.detach(), static_shapes=True))

    return [fake(x, role) for x, role in zip(inputs, found.roles, strict=True)]


def batch_symbol(probe: Tensor) -> sympy.Symbol | None:
    """The symbol of the number of rows; None if tracing fixed it to a number."""
    rows = probe.shape[0]
    if not isinstance(rows, torch.SymInt):
        return None
    expression = rows.node.expr
    return expression if isinstance(expression, sympy.Symbol) else None


def read_joint(
    joint: GraphModule, found: GraphInputs, batch: sympy.Symbol, assignments: tuple[Write, ...] = ()
) -> JointGraph:
    """Read the descriptors of AOTAutograd off a joint graph.

    Args:
        joint: the graph.
        found: roles of the inputs of the graph that it was made of.
        batch: the symbol of the number of samples.
        assignments: what the forward assigns.

    Raises:
        UnsupportedProgramError: inputs that alias one another, tensor subclasses, or writes in place.
    """
    refuse_writes_in_place(joint.graph)
    canonicalise(joint.graph)
    placeholders = joint.graph.find_nodes(op="placeholder")
    output = joint.graph.output_node()
    outputs, descriptors = tuple(output.args[0]), output.meta["desc"]  # type: ignore[arg-type]
    by_descriptor = {d: x for d, x in zip(descriptors, outputs, strict=True) if isinstance(d, AOTOutput)}
    inputs: dict[str, Input] = {}
    position: dict[int, str] = {}
    for node in placeholders:
        match node.meta["desc"]:
            case PlainAOTInput(idx=idx):
                inputs[node.name] = found.roles[idx]
                position[idx] = node.name
            case TangentAOTInput(output=of):
                source = by_descriptor.get(of)
                inputs[node.name] = Tangent(source.name if source is not None else None)
            case other:
                raise _unsupported(other)
    mutations, written = [], []
    for i, descriptor in enumerate(descriptors):
        if isinstance(descriptor, InputMutationAOTOutput):
            if not isinstance(descriptor.mutated_input, PlainAOTInput):
                raise _unsupported(descriptor.mutated_input)
            mutations.append(i)
            written.append(position[descriptor.mutated_input.idx])
    gradients, probe_gradient = {}, -1
    for i, descriptor in enumerate(descriptors):
        if not isinstance(descriptor, GradAOTOutput):
            continue
        if not isinstance(descriptor.grad_of, PlainAOTInput):
            raise _unsupported(descriptor.grad_of)
        role = found.roles[descriptor.grad_of.idx]
        if isinstance(role, Parameter):
            gradients[role.name] = i
        elif descriptor.grad_of.idx == found.probe:
            probe_gradient = i
    assert probe_gradient >= 0, "the probe has no gradient slot"
    return JointGraph(
        graph=joint.graph,
        batch_symbol=batch,
        inputs=MappingProxyType(inputs),
        probe=position[found.probe],
        gradients=MappingProxyType(gradients),
        probe_gradient=probe_gradient,
        mutations=tuple(mutations),
        written=tuple(written),
        num_forward_outputs=len(outputs) - sum(not isinstance(role, Tangent) for role in inputs.values()),
        returned=_returned(descriptors, outputs),
        module=joint,
        assignments=assignments,
    )


def _returned(descriptors: Sequence[Any], outputs: Sequence[Any]) -> tuple[str | None, ...]:
    """Names of the nodes that the captured graph returned, in its order."""
    found = {d.idx: x for d, x in zip(descriptors, outputs, strict=True) if isinstance(d, PlainAOTOutput)}
    return tuple(x.name if (x := found.get(i)) is not None else None for i in range(max(found, default=-1) + 1))


def _unsupported(descriptor: object) -> UnsupportedProgramError:
    return UnsupportedProgramError(
        f"an input of the graph is a {type(descriptor).__name__.removesuffix('AOTInput')}: {descriptor}",
        why="inputs that alias one another, or tensor subclasses, hide which value belongs to which sample",
        fix="pass plain tensors that do not share memory (clone them)",
    )
