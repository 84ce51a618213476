"""The forward of a captured graph, and the values in it that depend on no sample, computed op by op."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from dpgraph.capture.joint import Input, JointGraph, Sample, Tangent
from dpgraph.provenance.rules import operands_read
from dpgraph.torch_compat import PlainAOTInput, PlainAOTOutput, TangentAOTInput, draws_numbers

__all__ = ["Evaluation", "Forward", "is_floating"]


@dataclass(frozen=True)
class Forward:
    """The forward, whose inputs and outputs are known by their positions.

    Attributes:
        joint: the graph as it was captured.
    """

    joint: JointGraph

    @cached_property
    def inputs(self) -> Mapping[Node, int]:
        """Position among the inputs of every placeholder."""
        placeholders = self.joint.graph.find_nodes(op="placeholder")
        return {n: n.meta["desc"].idx for n in placeholders if isinstance(n.meta["desc"], PlainAOTInput)}

    @cached_property
    def written(self) -> frozenset[int]:
        """Positions of the inputs that are written."""
        return frozenset(self.inputs[self.joint.nodes[name]] for name in self.joint.written)

    def role(self, position: int) -> Input:
        """What an input is."""
        return next(self.joint.inputs[node.name] for node, i in self.inputs.items() if i == position)

    @cached_property
    def outputs(self) -> Mapping[int, Any]:
        """A node or a constant for each output, by position."""
        return {d.idx: x for d, x in self._described if isinstance(d, PlainAOTOutput)}

    @cached_property
    def attached(self) -> frozenset[int]:
        """Positions of the outputs that have a gradient."""
        placeholders = self.joint.graph.find_nodes(op="placeholder")
        wanted = {n.meta["desc"].output for n in placeholders if isinstance(n.meta["desc"], TangentAOTInput)}
        return frozenset(d.idx for d, _ in self._described if isinstance(d, PlainAOTOutput) and d in wanted)

    @cached_property
    def of_samples(self) -> frozenset[Node]:
        """Nodes whose values are computed from those of samples, or of gradients from outside."""
        found: set[Node] = set()
        for node in self.joint.graph.nodes:
            if node.op == "placeholder":
                if isinstance(self.joint.inputs[node.name], Sample | Tangent):
                    found.add(node)
            elif not _is_size(node) and any(x in found for x in _read_by(node)):
                found.add(node)
        return frozenset(found)

    @cached_property
    def counted(self) -> Mapping[int, Node]:
        """The outputs that depend on how many samples there are, and on no sample, by position: `1 / len(x)`.

        None has a gradient, or numbers of its own that are drawn, or counts what only data would tell.
        """
        given = {symbol for node in self.inputs for symbol in _symbols(node)}
        found = {}
        for i, node in self.outputs.items():
            if i in self.attached or not isinstance(node, Node) or node in self.of_samples:
                continue
            cone = self._cone(node)
            symbols = {symbol for x in cone for symbol in _symbols(x)}
            if self.joint.batch_symbol in symbols and symbols <= given and not any(draws_numbers(x) for x in cone):
                found[i] = node
        return found

    def _cone(self, wanted: Node) -> set[Node]:
        """What the value of a node is computed from, itself included."""
        found, waiting = {wanted}, [wanted]
        while waiting:
            new = [x for x in _read_by(waiting.pop()) if x not in found]
            found.update(new)
            waiting += new
        return found

    @cached_property
    def _described(self) -> list[tuple[Any, Any]]:
        return list(zip(self.joint.graph.output_node().meta["desc"], self.joint.outputs, strict=True))


class Evaluation:
    """Values of nodes that depend on no sample, for the inputs of one run.

    Args:
        forward: the graph.
        inputs: of the run.
        num_samples: what B counts as, if not the rows of the inputs.
    """

    def __init__(self, forward: Forward, inputs: Sequence[Any], *, num_samples: int | None = None) -> None:
        self._joint = forward.joint
        given = {node: inputs[i] for node, i in forward.inputs.items()}
        self._sizes = _bind_symbols((node.meta["val"], value) for node, value in given.items())
        if num_samples is not None:
            self._sizes[forward.joint.batch_symbol] = sympy.Integer(num_samples)
        self._known = {node: value for node, value in given.items() if not _is_size(node)}

    def run(self, wanted: Node) -> Any:
        """The value of a node."""
        needed = {wanted}
        order = list(self._joint.graph.nodes)
        for node in reversed(order):
            if node in needed and node not in self._known and not _is_size(node):
                needed.update(_read_by(node))
        for node in order:
            if node in needed and node not in self._known:
                self._known[node] = self._value(node)
        return self._known[wanted]

    def make_up(self, node: Node, fill: float) -> Any:
        """A value in the shape of a node's; 0 where `fill` cannot be."""
        like = node.meta["val"]
        if not isinstance(like, Tensor):
            return self._number(like)
        shape, stride = ([self._number(s) for s in sizes] for sizes in (like.shape, like.stride()))
        made = torch.empty_strided(shape, stride, dtype=like.dtype, device=like.device)
        return made.fill_(fill if like.is_floating_point() or like.is_complex() else 0)

    def _value(self, node: Node) -> Any:
        if _is_size(node):
            return self._number(node.meta["val"])
        if node.op == "get_attr":
            return reduce(getattr, str(node.target).split("."), self._joint.module)
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        return target(*map_arg(node.args, self._operand), **map_arg(node.kwargs, self._operand))

    def _operand(self, node: Node) -> Any:
        """What a creation reads nothing but the shape of is not computed."""
        return self._known[node] if node in self._known else self.make_up(node, 0)

    def _number(self, size: Any) -> Any:
        """A size of this call; a count that only data would tell is that of no samples."""
        if not _is_symbolic(size):
            return size
        value = size.node.expr.xreplace(self._sizes)
        if value.free_symbols:
            return 0
        if value.is_infinite:  # a division by the number of no samples
            return math.inf
        return bool(value) if isinstance(size, torch.SymBool) else size.node.pytype(value)


def is_floating(node: object) -> bool:
    """Whether an output is a tensor that can hold NaN."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def _symbols(node: Node) -> set[sympy.Symbol]:
    """The symbols in a number, or in the shape of a tensor."""
    value = node.meta.get("val")
    numbers: Iterable[Any] = value.shape if isinstance(value, Tensor) else [value]
    return {symbol for x in numbers if _is_symbolic(x) for symbol in x.node.expr.free_symbols}


def _is_size(node: Node) -> bool:
    value = node.meta.get("val")
    return _is_symbolic(value) or isinstance(value, int | float | bool)


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, torch.SymInt | torch.SymFloat | torch.SymBool)


def _read_by(node: Node) -> list[Node]:
    """The operands whose values a node reads."""
    sizes = [x for x in node.all_input_nodes if _is_size(x)]
    return list(dict.fromkeys([*operands_read(node), *sizes]))


def _bind_symbols(inputs: Iterable[tuple[Any, Any]]) -> dict[sympy.Symbol, sympy.Expr]:
    """The symbols of sizes, as the inputs of a run have them.

    Args:
        inputs: each as it was when the graph was captured, and as it is.
    """
    bound: dict[sympy.Symbol, sympy.Expr] = {}
    for fake, value in inputs:
        sizes = zip(fake.shape, value.shape, strict=True) if isinstance(fake, Tensor) else [(fake, value)]
        for symbolic, size in sizes:
            if isinstance(symbolic, torch.SymInt) and isinstance(symbolic.node.expr, sympy.Symbol):
                bound[symbolic.node.expr] = sympy.Integer(size)
    return bound
