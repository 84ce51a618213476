"""Answer a call of no samples without running the compiled graph.

A graph is captured with two rows or more, on fake values, and rows that are made up may be no sample at all: zeros
break `gather(1, lengths - 1)`, a table of ids that count from 1, and a loss of labels that do. So they are never
computed with. Whatever depends on the samples has no rows, and any values in its shape will do: `lower.padding` takes
them out again, and gives sums over no samples their value. What depends on no sample, such as a learned temperature or
a counter of steps, is computed op by op.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import Node

from dpgraph.capture.joint import Parameter
from dpgraph.lower.forward import Evaluation, Forward
from dpgraph.passes.pipeline import Rewriting
from dpgraph.provenance.lattice import Refused

__all__ = ["EmptyCall"]


@dataclass(frozen=True)
class EmptyCall:
    """Takes the place of a compiled graph where there are no samples: same inputs, same outputs, same effects.

    Formal guarantee: the outputs' gradients with respect to all parameters are zero, whatever becomes of the outputs.

    Attributes:
        rewriting: of the graph that was compiled.
        forward: of the same graph.
    """

    rewriting: Rewriting
    forward: Forward

    def __call__(self, *inputs: Any) -> list[Any]:
        """Outputs with as many rows as the inputs have, attached to the parameters that get gradients."""
        with torch.no_grad(), torch.autocast(_device(inputs).type, enabled=False):
            evaluation = Evaluation(self.forward, inputs)
            outputs = self._outputs(evaluation)
            written = {i: evaluation.run(node) for i, node in self._writes.items()}
            for i, value in written.items():
                inputs[i].copy_(value)
        trained = [inputs[i] for i in self._differentiable if inputs[i].requires_grad]
        places = sorted(self.forward.attached)
        attached = _WithoutSamples.apply(tuple(outputs[i] for i in places), *trained)  # type: ignore[no-untyped-call]
        by_place = dict(zip(places, attached, strict=True))
        return [by_place.get(i, x) for i, x in enumerate(outputs)]

    def _outputs(self, evaluation: Evaluation) -> list[Any]:
        made = []
        for i, provenance in enumerate(self.rewriting.returned):
            node = self.forward.outputs.get(i)
            if not isinstance(node, Node):
                made.append(node)
            elif node in self.forward.of_samples:
                made.append(evaluation.make_up(node, torch.nan if isinstance(provenance, Refused) else 0))
            else:
                value = evaluation.run(node)
                made.append(value.clone() if i in self.forward.attached else value)
        return made

    @cached_property
    def _differentiable(self) -> tuple[int, ...]:
        """Positions of the inputs that the compiled backward has gradients for."""
        result = list(self.rewriting.stages.values())[-1]
        found = []
        for node, i in self.forward.inputs.items():
            role = self.forward.joint.inputs[node.name]
            has_gradient = isinstance(role, Parameter) and result.gradient_of(role.name) is not None
            if has_gradient or node.name == self.forward.joint.probe:
                found.append(i)
        return tuple(found)

    @cached_property
    def _writes(self) -> Mapping[int, Node]:
        """The new value of each input that the forward writes."""
        joint = self.forward.joint
        new = {joint.nodes[name]: joint.outputs[i] for i, name in zip(joint.mutations, joint.written, strict=True)}
        return {self.forward.inputs[x]: v for x, v in new.items() if v is not None and v not in self.forward.of_samples}


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


def _device(inputs: Sequence[Any]) -> torch.device:
    return next(x.device for x in inputs if isinstance(x, Tensor))
