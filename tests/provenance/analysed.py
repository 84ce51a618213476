"""Trace a small function, and say what the provenance analysis finds of its results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from dpgraph.capture.joint import Constant, JointGraph, Sample
from dpgraph.provenance.infer import infer_provenance
from dpgraph.provenance.lattice import Provenance
from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, trace

B = "B"


@dataclass(frozen=True)
class Input:
    """An argument: a shape in which "B" stands for the number of samples; shared if it has none.

    `integers` bounds the values of an integer input.
    """

    shape: tuple[Any, ...]
    integers: int | None = None
    shared: bool = False

    @property
    def axis(self) -> int | None:
        return self.shape.index(B) if B in self.shape and not self.shared else None

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        shape = [num_samples if s == B else s for s in self.shape]
        if self.integers is not None:
            return torch.randint(self.integers, shape, generator=generator)
        return torch.randn(shape, generator=generator, dtype=torch.float64)


def samples(*shape: Any, integers: int | None = None) -> Input:
    """An input of the samples."""
    return Input(shape, integers)


def shared(*shape: Any, integers: int | None = None) -> Input:
    """An input that all samples share; "B" in its shape is a size alone."""
    return Input(shape, integers, shared=True)


def analyse(
    function: Callable[..., Any], inputs: Sequence[Input], num_samples: int = 3, *, decomposed: bool = True
) -> list[Provenance]:
    """Provenance of the function's results, after the decompositions that the compiler uses or without any."""
    graph, symbol = _trace(function, inputs, num_samples, decomposed)
    placeholders = graph.find_nodes(op="placeholder")
    roles = {
        node.name: Constant() if spec.axis is None else Sample(spec.axis)
        for node, spec in zip(placeholders, inputs, strict=True)
    }
    joint = JointGraph(
        graph=graph,
        batch_symbol=symbol,
        inputs=MappingProxyType(roles),
        probe=placeholders[0].name,
        gradients=MappingProxyType({}),
        probe_gradient=0,
        mutations=(),
        written=(),
        num_forward_outputs=len(graph.output_node().all_input_nodes),
        returned=(),
        module=torch.nn.Module(),
    )
    known = infer_provenance(joint)
    (results,) = graph.output_node().args
    several = results if isinstance(results, (tuple, list)) else (results,)
    return [known[node] for node in several]  # type: ignore[index, misc]


def _trace(
    function: Callable[..., Any], inputs: Sequence[Input], num_samples: int, decomposed: bool
) -> tuple[Any, Any]:
    env = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(shape_env=env)
    seed = torch.zeros(num_samples + 2)  # a size that no other axis has, so that it stays a symbol of its own
    torch._dynamo.mark_dynamic(seed, 0)
    with mode:
        size = mode.from_tensor(seed).shape[0]
        generator = torch.Generator().manual_seed(0)
        values = [_symbolic(spec, size, generator) for spec in inputs]
        symbol = size.node.expr
        traced = trace(function, values) if decomposed else make_fx(function)(*values)
    assert size.node.expr == symbol, "the program fixed the number of samples"
    return traced.graph, symbol


def _symbolic(spec: Input, size: Any, generator: torch.Generator) -> Tensor:
    shape = [size if s == B else s for s in spec.shape]
    return torch.zeros(shape, dtype=torch.int64 if spec.integers is not None else torch.float64)
