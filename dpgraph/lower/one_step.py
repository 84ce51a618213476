"""Run one step of a module on inputs like those of a call, to see what it allocates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.containers import Leaf
from dpgraph.deliveries import set_aside
from dpgraph.errors import ArgumentError
from dpgraph.memory.measure import measure_peak
from dpgraph.torch_compat import FakeTensor, tree_leaves

__all__ = ["describe", "measure_one_step"]


@dataclass(frozen=True, slots=True)
class Like(Leaf):
    """A tensor without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    exists: bool


def describe(call: Arguments) -> Arguments:
    """A call with a `Like` in the place of every tensor: it holds none of them."""

    def like(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        exists = not (x.is_meta or isinstance(x, FakeTensor))
        return Like(tuple(x.shape), tuple(x.stride()), x.dtype, x.device, exists)

    return call.map(like)


def measure_one_step(module: nn.Module, example: Arguments) -> int:
    """Bytes at the peak of a forward and a backward of the sum of what the module returns, on zeros.

    `example` is a described call. Gradients, random state and parameters are afterwards as they were before.

    Raises:
        ArgumentError: the call was of tensors that do not exist.
    """
    if not all(x.exists for x in example.leaves() if isinstance(x, Like)):
        raise ArgumentError(
            "the model was planned, on tensors without values",
            why="what does not exist cannot be run, and so not measured",
            fix="call dp_compile with the model itself",
        )
    call = example.map(_zeros)
    behind = {"targets": call.targets} if call.targets else {}

    def step() -> object:
        outputs = module(*call.args, **call.kwargs, **behind)
        differentiable = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
        torch.stack([x.sum().to(torch.float32) for x in differentiable]).sum().backward()
        return outputs

    parameters = list(module.parameters())
    device = parameters[0].device
    buffers = [(b, b.clone()) for b in module.buffers()]
    with torch.random.fork_rng(enabled=True), torch.enable_grad(), set_aside(parameters):
        try:
            step()  # the first may still compile
            _clear(parameters)
            return measure_peak(step, device)
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _clear(parameters: list[nn.Parameter]) -> None:
    for p in parameters:
        p.grad = None


def _zeros(x: Any) -> Any:
    if not isinstance(x, Like):
        return x
    made = torch.empty_strided(x.shape, x.stride, dtype=x.dtype, device=x.device)
    return made.zero_()
