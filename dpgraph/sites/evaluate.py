"""Evaluate a site for every sample alone: run its slice on values that keep the samples apart."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.sizes import size_of
from dpgraph.gradients.fallback import map_over_samples
from dpgraph.gradients.forms import Gradient, materialise
from dpgraph.gradients.registry import PerSampleTensor
from dpgraph.gradients.rules import GRADIENT_RULES, LINEAR_RULES
from dpgraph.provenance.lattice import PerSample
from dpgraph.provenance.registry import Results
from dpgraph.sites.find import Site
from dpgraph.torch_compat import compute_size, tree_map

__all__ = ["SiteFunction"]


@dataclass(frozen=True)
class SiteFunction:
    """The per-sample gradient of a site as a function of what it reads.

    Attributes:
        joint: the graph that the site was found in.
        provenance: what was inferred of it.
        site: the site.
    """

    joint: JointGraph
    provenance: Mapping[Node, Results]
    site: Site

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the nodes that `__call__` takes the values of, in order: the probe, what the site reads, sizes."""
        return tuple(dict.fromkeys((self.joint.probe, *self.site.frontier, *self._sizes)))

    @property
    def _sizes(self) -> Iterator[str]:
        """The inputs that are sizes before and behind the samples, where one axis has both and neither is a number."""
        read = [self.provenance[self.joint.nodes[name]] for name in self.site.frontier]
        symbols = {s for p in read if isinstance(p, PerSample) and _between_symbols(p) for s in p.outer.free_symbols}
        for name in self.joint.inputs:
            size = self.joint.nodes[name].meta.get("val")
            if isinstance(size, torch.SymInt) and size.node.expr in symbols:
                yield name

    def __call__(self, *values: Any) -> Gradient:
        """The per-sample gradient, from the values of `operands`."""
        env: dict[Node, Any] = {
            self.joint.nodes[name]: value for name, value in zip(self.operands, values, strict=True)
        }
        for name in self.site.slice:
            node = self.joint.nodes[name]
            env[node] = self._run(node, env)
        gradient: Gradient = env[self.joint.nodes[self.site.gradient]]
        return gradient

    def _run(self, node: Node, env: dict[Node, Any]) -> Any:
        if node.target is operator.getitem:
            return env[node.args[0]][node.args[1]]  # type: ignore[index]
        carries_on = any(isinstance(env.get(x), tuple) for x in node.all_input_nodes)
        if carries_on and node.target in LINEAR_RULES:
            args, kwargs = self._resolve(node, env, lambda _, value: value)
            gradient = LINEAR_RULES[node.target](*args, **kwargs)
            if gradient is not None:
                return gradient
        layout = self._layout(node)
        args, kwargs = self._resolve(node, env, lambda x, value: self._stack(x, value, layout, env))
        result = GRADIENT_RULES[node.target](*args, **kwargs) if node.target in GRADIENT_RULES else None
        if result is None:
            result = map_over_samples(node.target, args, kwargs)
        if isinstance(result, tuple):
            return tuple(None if form is None else (form,) for form in result)
        return (result,)

    def _resolve(self, node: Node, env: dict[Node, Any], place: Callable[[Node, Any], Any]) -> tuple[Any, Any]:
        """Arguments with values for nodes, and every size that holds the batch size taken for one sample."""

        def value_of(x: Any) -> Any:
            if not isinstance(x, Node):
                return x
            if isinstance(x.meta.get("val"), torch.SymInt):
                return self._for_one_sample(x, env)
            return place(x, env[x])

        return tree_map(value_of, node.args), tree_map(value_of, node.kwargs)

    def _for_one_sample(self, node: Node, env: dict[Node, Any]) -> Any:
        """A size, with B taken as 1."""
        batch = self.joint.batch_symbol
        size = size_of(node.meta["val"], batch)
        alone = size.subs(batch, 1)
        if alone.is_Integer:
            return int(alone)
        assert size == alone or sympy.expand(size - alone * batch) == 0, f"{node} is no multiple of the batch size"
        return env[node] if size == alone else env[node] // self._num_samples(env)

    def _num_samples(self, env: dict[Node, Any]) -> Any:
        return env[self.joint.nodes[self.joint.probe]].shape[0]

    def _layout(self, node: Node) -> PerSample | None:
        """How the samples lie in the operands of an op, where only one split of their axis is true."""
        found = [p for x in node.all_input_nodes if isinstance(p := self.provenance[x], PerSample)]
        return next((p for p in found if not p.exchangeable), None)

    def _stack(self, node: Node, value: Any, layout: PerSample | None, env: dict[Node, Any]) -> Any:
        """One value a sample, stacked in front; the value itself if all samples share it."""
        if isinstance(value, tuple):
            return PerSampleTensor(materialise(value))
        found = self.provenance[node]
        if not isinstance(found, PerSample):
            return value
        split = layout.moved_to(found.axis) if found.exchangeable and layout is not None else found
        sizes = [x for x in env.values() if isinstance(x, torch.SymInt)]
        outer = compute_size(split.outer, sizes) if _between_symbols(split) else _size(split.outer)
        return PerSampleTensor(_samples_first(value, split.axis, outer, self._num_samples(env), _size(split.inner)))


def _samples_first(value: Tensor, axis: int, outer: Any, num_samples: Any, inner: int) -> Tensor:
    """[..., outer * B * inner, ...] to [B, ..., outer * inner, ...]."""
    if outer == inner == 1:
        return (value.movedim(axis, 0) if axis else value).unsqueeze(axis + 1)
    if axis == 0 and isinstance(outer, int) and outer == 1:  # a symbol is not compared: that would be a guard
        return value.reshape(num_samples, inner, *value.shape[1:])
    split = value.reshape(*value.shape[:axis], outer, num_samples, inner, *value.shape[axis + 1 :])
    return split.movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


def _between_symbols(found: PerSample) -> bool:
    return _size(found.outer) == _size(found.inner) == -1


def _size(factor: sympy.Expr) -> int:
    """A factor of a size; -1, for `reshape` to find out, if it is symbolic."""
    return int(factor) if factor.is_Integer else -1
