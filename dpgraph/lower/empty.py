"""Answer a call of no samples without running the compiled graph.

A graph is captured with two rows or more, on fake values, and rows that are made up may be no sample at all: zeros
break `gather(1, lengths - 1)`, a table of ids that count from 1, and a loss of labels that do. So they are never
computed with. Whatever depends on the samples has no rows, and any values in its shape will do: `lower.padding` takes
them out again, and gives sums over no samples their value. What depends on no sample, such as a learned temperature or
a counter of steps, is computed op by op.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import Node
from torch.fx.node import map_arg

from dpgraph.capture.joint import JointGraph, Parameter, Sample, Tangent
from dpgraph.passes.pipeline import Rewriting
from dpgraph.provenance.lattice import Refused
from dpgraph.provenance.rules import operands_read
from dpgraph.torch_compat import PlainAOTInput, PlainAOTOutput, TangentAOTInput

__all__ = ["EmptyCall"]


@dataclass(frozen=True)
class EmptyCall:
    """Takes the place of a compiled graph where there are no samples: same inputs, same outputs, same effects.

    Formal guarantee: the outputs' gradients with respect to all parameters are zero, whatever becomes of the outputs.

    Attributes:
        rewriting: of the graph that was compiled.
    """

    rewriting: Rewriting

    def __call__(self, *inputs: Any) -> list[Any]:
        """Outputs with as many rows as the inputs have, attached to the parameters that get gradients."""
        with torch.no_grad(), torch.autocast(_device(inputs).type, enabled=False):
            evaluation = _Evaluation(self._joint, self._binding, inputs)
            outputs = self._outputs(evaluation)
            written = {i: evaluation.run(node) for i, node in self._writes.items()}
            for i, value in written.items():
                inputs[i].copy_(value)
        trained = [inputs[i] for i in self._differentiable if inputs[i].requires_grad]
        places = sorted(self._attached)
        attached = _WithoutSamples.apply(tuple(outputs[i] for i in places), *trained)  # type: ignore[no-untyped-call]
        by_place = dict(zip(places, attached, strict=True))
        return [by_place.get(i, x) for i, x in enumerate(outputs)]

    def _outputs(self, evaluation: "_Evaluation") -> list[Any]:
        made = []
        for i, provenance in enumerate(self.rewriting.returned):
            node = self._returned.get(i)
            if not isinstance(node, Node):
                made.append(node)
            elif node in self._of_samples:
                made.append(evaluation.make_up(node, torch.nan if isinstance(provenance, Refused) else 0))
            else:
                value = evaluation.run(node)
                made.append(value.clone() if i in self._attached else value)
        return made

    @property
    def _joint(self) -> JointGraph:
        return self.rewriting.stages["captured"]

    @cached_property
    def _binding(self) -> Mapping[Node, int]:
        """Position among the inputs of every placeholder of the forward."""
        placeholders = self._joint.graph.find_nodes(op="placeholder")
        return {n: n.meta["desc"].idx for n in placeholders if isinstance(n.meta["desc"], PlainAOTInput)}

    @cached_property
    def _described(self) -> list[tuple[Any, Any]]:
        return list(zip(self._joint.graph.output_node().meta["desc"], self._joint.outputs, strict=True))

    @cached_property
    def _returned(self) -> Mapping[int, Any]:
        return {d.idx: x for d, x in self._described if isinstance(d, PlainAOTOutput)}

    @cached_property
    def _attached(self) -> frozenset[int]:
        """Positions of the outputs that have a gradient."""
        placeholders = self._joint.graph.find_nodes(op="placeholder")
        wanted = {n.meta["desc"].output for n in placeholders if isinstance(n.meta["desc"], TangentAOTInput)}
        return frozenset(d.idx for d, _ in self._described if isinstance(d, PlainAOTOutput) and d in wanted)

    @cached_property
    def _differentiable(self) -> tuple[int, ...]:
        """Positions of the inputs that the compiled backward has gradients for."""
        result = list(self.rewriting.stages.values())[-1]
        found = []
        for node, i in self._binding.items():
            role = self._joint.inputs[node.name]
            has_gradient = isinstance(role, Parameter) and result.gradient_of(role.name) is not None
            if has_gradient or node.name == self._joint.probe:
                found.append(i)
        return tuple(found)

    @cached_property
    def _writes(self) -> Mapping[int, Node]:
        """The new value of each input that the forward writes."""
        joint = self._joint
        new = {joint.nodes[name]: joint.outputs[i] for i, name in zip(joint.mutations, joint.written, strict=True)}
        return {self._binding[x]: v for x, v in new.items() if v is not None and v not in self._of_samples}

    @cached_property
    def _of_samples(self) -> frozenset[Node]:
        """Nodes whose values are computed from those of samples, or of gradients from outside."""
        found: set[Node] = set()
        for node in self._joint.graph.nodes:
            if node.op == "placeholder":
                if isinstance(self._joint.inputs[node.name], Sample | Tangent):
                    found.add(node)
            elif not _is_size(node) and any(x in found for x in _read_by(node)):
                found.add(node)
        return frozenset(found)


class _Evaluation:
    """Values of nodes that depend on no sample, for the inputs of one call."""

    def __init__(self, joint: JointGraph, binding: Mapping[Node, int], inputs: Sequence[Any]) -> None:
        self._joint = joint
        self._known: dict[Node, Any] = {node: inputs[i] for node, i in binding.items()}
        self._sizes = _bind_symbols(self._known)
        self._device = _device(inputs)

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
        if not isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool):
            return size
        value = size.node.expr.xreplace(self._sizes)
        if value.free_symbols:
            return 0
        return bool(value) if isinstance(size, torch.SymBool) else size.node.pytype(value)


class _WithoutSamples(torch.autograd.Function):
    """Outputs that depend on parameters, with gradients of zero."""

    @staticmethod
    def forward(ctx: Any, outputs: tuple[Tensor, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool)


def _read_by(node: Node) -> list[Node]:
    """The operands whose values a node reads."""
    sizes = [x for x in node.all_input_nodes if _is_size(x)]
    return list(dict.fromkeys([*operands_read(node), *sizes]))


def _bind_symbols(values: Mapping[Node, Any]) -> dict[sympy.Symbol, sympy.Expr]:
    """The symbols of sizes, as the inputs have them."""
    bound: dict[sympy.Symbol, sympy.Expr] = {}
    for node, value in values.items():
        fake = node.meta["val"]
        sizes = zip(fake.shape, value.shape, strict=True) if isinstance(fake, Tensor) else [(fake, value)]
        for symbolic, size in sizes:
            if isinstance(symbolic, torch.SymInt) and isinstance(symbolic.node.expr, sympy.Symbol):
                bound[symbolic.node.expr] = sympy.Integer(size)
    return bound


def _device(inputs: Sequence[Any]) -> torch.device:
    return next(x.device for x in inputs if isinstance(x, Tensor))
