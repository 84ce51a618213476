"""Check by experiment that samples stay apart: change one sample, and see what else moves.

The provenance analysis proves; this measures, on the model as it is written and with no graph at all. They can check
one another: a program that the analysis accepts must show no influence here.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.batch import BatchDims, find_batch
from dpgraph.errors import ArgumentError
from dpgraph.lower.module import DPModule
from dpgraph.torch_compat import tree_leaves

__all__ = ["Audit", "Influence", "audit_provenance"]

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Influence:
    """Something of others that moved when one sample was replaced.

    Attributes:
        sample: position of the sample that was replaced.
        on: what moved: an output of the other samples, their gradient of a parameter, or a buffer.
        change: largest change, relative to the largest value; infinite if a value is no longer finite.
    """

    sample: int
    on: str
    change: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        num_samples: how many samples were replaced, one at a time.
        num_compared: how many values of other samples were compared.
        influences: everything that moved and should not have.
    """

    num_samples: int
    num_compared: int
    influences: tuple[Influence, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing moved."""
        return not self.influences

    def __str__(self) -> str:
        if self.sound:
            return f"{self.num_samples} samples replaced, {self.num_compared} values of the others compared: none moved"
        lines = [f"sample {i.sample} moves {i.on} by {i.change:.2e}" for i in self.influences]
        return "\n".join(lines)


def audit_provenance(
    model: nn.Module,
    inputs: tuple[Any, ...] | Mapping[str, Any],
    *,
    batch_dims: BatchDims = None,
    output_dim: int = 0,
    seed: int = 0,
) -> Audit:
    """Replace one sample at a time by its neighbour, and compare what the model makes of all others.

    Compared are the outputs of the other samples, the gradient of every parameter that they give together (with fixed
    random gradients of their outputs), and the buffers after the call. Everything runs in float64 on copies of the
    model, with the same random numbers each time.

    Limits: an experiment finds what these inputs show. How the number of samples or a sample's place in the batch
    enters is not seen, since neither changes; outputs that are no tensors with a batch on `output_dim`, such as a loss
    over all samples, are not compared. It is no proof; `dp_compile` has one.

    Args:
        model: a module, or what `dp_compile` made of it. It is left as it is.
        inputs: arguments of a call with two samples or more, by position or by name; no two neighbours alike.
        batch_dims: as in `dp_compile`.
        output_dim: the axis of the samples in the outputs.
        seed: of the random numbers.

    Returns:
        The findings; costs a forward and a backward for each sample, and as many again for comparison.

    Raises:
        ArgumentError: there is no batch of two or more.

    >>> from torch import nn
    >>> audit_provenance(nn.Linear(3, 2), (torch.randn(4, 3),)).sound
    True
    >>> print(audit_provenance(nn.BatchNorm1d(3, affine=False), (torch.eye(3),)).influences[0].on)
    output 0
    """
    model = model.original_module if isinstance(model, DPModule) else model
    given = Arguments.of_call(inputs)
    call = find_batch(given, inspect.signature(model.forward), batch_dims)
    if call.num_samples < 2:
        raise ArgumentError(
            f"the inputs hold {call.num_samples} samples",
            why="the influence of one sample on another shows only where there are two",
            fix="pass a batch of at least two samples that differ",
        )
    experiment = _Experiment(model, call.num_samples, output_dim, seed)
    influences: list[Influence] = []
    num_compared = 0
    for b in range(call.num_samples):
        replaced = call.arguments.map(partial(_replace, call.dims, b))
        before, after = (experiment.run(x, without=b) for x in (call.arguments, replaced))
        for name, value in before.items():
            change = _change(value, after[name])
            num_compared += value.numel()
            if not change <= TOLERANCE:
                influences.append(Influence(b, name, change))
    return Audit(call.num_samples, num_compared, tuple(influences))


def _replace(dims: Mapping[int, int], b: int, x: Any) -> Any:
    """x with the values of the next sample in the place of sample b, if it has a batch axis."""
    axis = dims.get(id(x))
    if axis is None:
        return x
    changed: Tensor = x.clone()
    changed.select(axis, b).copy_(x.select(axis, (b + 1) % x.shape[axis]))
    return changed


@dataclass(frozen=True, slots=True)
class _Experiment:
    model: nn.Module
    num_samples: int
    output_dim: int
    seed: int

    def run(self, given: Arguments, *, without: int) -> dict[str, Tensor]:
        """Outputs and gradients of all samples but one, and buffers, by name."""
        call = given.map(_double)
        twin = copy.deepcopy(self.model).double()
        for parameter in twin.parameters():
            parameter.requires_grad_(parameter.dtype.is_floating_point)
            parameter.grad = None
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            outputs = twin(*call.args, **call.kwargs)
            kept = {f"output {i}": x for i, x in self._rows(outputs, without)}
            total = sum((x * torch.randn_like(x)).sum() for x in kept.values() if x.requires_grad)
        if isinstance(total, Tensor):
            total.backward()
        found = {name: x.detach() for name, x in kept.items()}
        for name, parameter in twin.named_parameters():
            if parameter.grad is not None:
                found[f"the gradient of {name}"] = parameter.grad
        return found | {f"buffer {name}": x for name, x in twin.named_buffers() if x.dtype.is_floating_point}

    def _rows(self, outputs: Any, without: int) -> Iterator[tuple[int, Tensor]]:
        """Every output that has a batch, less one sample."""
        leaves = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.dtype.is_floating_point]
        others = torch.tensor([b for b in range(self.num_samples) if b != without])
        for i, x in enumerate(leaves):
            if x.ndim > self.output_dim and x.shape[self.output_dim] == self.num_samples:
                yield i, x.index_select(self.output_dim, others.to(x.device))


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype.is_floating_point else x


def _change(before: Tensor, after: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    if before.numel() == 0 or torch.equal(before, after):
        return 0.0
    scale = max(float(before.abs().max()), torch.finfo(before.dtype).tiny)
    change = float((after - before).abs().max()) / scale
    return change if change == change else float("inf")
