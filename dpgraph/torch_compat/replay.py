"""What it takes to repeat a compiled graph op by op: Inductor's random numbers, and parts of a graph compiled alone."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch._inductor.compile_fx
from torch import Tensor
from torch._inductor import inductor_prims
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from dpgraph.torch_compat.lowering import inside_inductor, run_whole
from dpgraph.torch_compat.tracing import symbolic_fake, trace

__all__ = [
    "INDUCTOR_RANDINT",
    "INDUCTOR_RANDOM",
    "compile_part",
    "draw_from_seed",
    "draw_seeds",
]

INDUCTOR_RANDOM = inductor_prims.random
INDUCTOR_RANDINT = inductor_prims.randint


def draw_seeds(count: int, device: torch.device) -> Tensor:
    """As many seeds as Inductor draws at the start of a graph, from the same generator in the same way."""
    limits = torch.iinfo(torch.int64)
    seeds = torch.empty(count, dtype=torch.int64, device=device)
    torch.ops.aten.randint.low_out(limits.min, limits.max, [count], out=seeds)
    return seeds


def draw_from_seed(seed: Tensor, size: Sequence[int], kind: str, low: int = 0, high: int = 0) -> Tensor:
    """The numbers that Inductor makes of one seed: a function of the seed and of the place in a contiguous tensor.

    Args:
        seed: int64, no axes.
        size: of the result.
        kind: "rand", "randn" or "randint".
        low: of "randint".
        high: of "randint".
    """
    num_numbers = 1
    for length in size:
        num_numbers *= length
    if num_numbers == 0:
        return torch.empty(*size, dtype=torch.int64 if kind == "randint" else torch.float32, device=seed.device)
    like = torch.empty(max(num_numbers, 2), dtype=torch.uint8, device=seed.device)  # sizes below 2 are constants
    (numbers,) = _generator(kind, low, high, seed.device)(seed, like)
    drawn: Tensor = numbers[:num_numbers].reshape(tuple(size))
    return drawn


@cache
def _generator(kind: str, low: int, high: int, device: torch.device) -> Callable[..., Any]:
    """A kernel of Inductor's that makes random numbers and nothing else, as many as its second argument has."""

    def draw(seed: Tensor, like: Tensor) -> list[Tensor]:
        if kind == "randint":
            return [INDUCTOR_RANDINT(low, high, [like.shape[0]], seed)]
        return [INDUCTOR_RANDOM([like.shape[0]], seed, kind)]

    mode = FakeTensorMode(shape_env=ShapeEnv())
    seed = mode.from_tensor(torch.zeros((), dtype=torch.int64, device=device))
    fakes = [seed, symbolic_fake(mode, torch.empty(7, dtype=torch.uint8, device=device), 0)]
    with mode:
        traced = trace(draw, fakes)
    compiled: Callable[..., Any] = torch._inductor.compile_fx.compile_fx(traced, fakes)  # type: ignore[assignment]
    return compiled


def compile_part(part: GraphModule) -> Callable[..., Any]:
    """A graph without a backward, of operators that are decomposed already, as Inductor compiles it.

    The module is changed. The result takes the placeholders' values in a list, which it empties.
    """
    run_whole()
    inputs = [node.meta.get("val") for node in part.graph.find_nodes(op="placeholder")]
    with inside_inductor(inputs), torch.no_grad():
        part = torch._inductor.compile_fx._recursive_joint_graph_passes(part)
        compiled: Callable[..., Any] = torch._inductor.compile_fx.compile_fx_inner(part, inputs)
    return compiled
