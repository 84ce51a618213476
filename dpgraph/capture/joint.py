"""The joint forward/backward graph of a model, with the meaning of what goes in and comes out.

Nodes are spoken of by name, since a copy of a graph keeps the names: the roles hold for every stage of the pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import sympy
import torch
from torch.fx import Graph, Node

from dpgraph.errors import SourceLine

__all__ = ["Constant", "Input", "JointGraph", "Parameter", "Sample", "Tangent", "Write"]


@dataclass(frozen=True, slots=True)
class Sample:
    """An input with one record a sample along `axis`.

    Attributes:
        axis: of the samples.
        name: of the argument that it is, or is in.
    """

    axis: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the model, by its name there."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """An input that is the same for all samples: a buffer, a size, an argument that all samples share.

    Attributes:
        name: of the buffer or argument; "" for a size.
    """

    name: str = ""


@dataclass(frozen=True, slots=True)
class Tangent:
    """The gradient of the loss with respect to a forward output, by the output's node name; None for the probe's."""

    output: str | None


Input = Sample | Parameter | Constant | Tangent


@dataclass(frozen=True, slots=True)
class Write:
    """An assignment that the tracer will do once the graph has run.

    Attributes:
        target: what is written to, by the name that the user knows it by.
        returned: positions of what is written among the values that the captured graph returns.
        unproved: what else is written of which no graph tells that it is free of samples, in words.
        line: the user's source line.
    """

    target: str
    returned: tuple[int, ...]
    unproved: tuple[str, ...]
    line: SourceLine | None


@dataclass(frozen=True)
class JointGraph:
    """A joint graph and its interface.

    Attributes:
        graph: forward and backward in one graph; treated as immutable.
        batch_symbol: the batch size B in symbolic shapes.
        inputs: role of every placeholder, by name.
        probe: name of the placeholder [B, 2, K] that carries each sample's loss scale, and whose gradient slot carries
            the norms out.
        gradients: position among the outputs of each parameter's gradient, by parameter name.
        probe_gradient: position among the outputs of the probe's gradient.
        mutations: positions among the outputs of new values of buffers.
        written: names of the placeholders that get those values after the forward, in the same order.
        num_forward_outputs: how many of the outputs belong to the forward; they come first.
        returned: node name of each value that the captured graph returns to the module, in order; None for a constant.
        assignments: assignments to what outlives the call, which are done once the forward has run.
    """

    graph: Graph
    batch_symbol: sympy.Symbol
    inputs: Mapping[str, Input]
    probe: str
    gradients: Mapping[str, int]
    probe_gradient: int
    mutations: tuple[int, ...]
    num_forward_outputs: int
    returned: tuple[str | None, ...]
    module: torch.nn.Module = field(repr=False)
    written: tuple[str, ...] = ()
    assignments: tuple[Write, ...] = ()

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Every node by its name."""
        return MappingProxyType({node.name: node for node in self.graph.nodes})

    @property
    def outputs(self) -> tuple[Node | None, ...]:
        """What the graph returns."""
        return tuple(self.graph.output_node().args[0])  # type: ignore[arg-type]

    def gradient_of(self, parameter: str) -> Node | None:
        """The node of a parameter's gradient; None if it gets none."""
        return self.outputs[self.gradients[parameter]]

    def copy(self) -> "JointGraph":
        """The same with a graph of its own, in which nodes keep their names."""
        graph = Graph(self.graph.owning_module)
        result = graph.graph_copy(self.graph, {})
        output = graph.output(result)
        output.meta = dict(self.graph.output_node().meta)
        return replace(self, graph=graph)

    def set_outputs(self, changes: Mapping[int, Node | None]) -> None:
        """Replace outputs of a graph that is still being built."""
        self.graph.output_node().args = ([changes.get(i, x) for i, x in enumerate(self.outputs)],)
