"""Per-sample gradients of any op: the op itself, mapped over the samples.

`torch.func.vmap` cannot be traced for every op without fixing the number of samples, so it runs inside one operator of
its own, `dpgraph::map_over_samples`, which a graph holds as a single node.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.registry import PerSampleTensor

__all__ = ["map_over_samples"]


def map_over_samples(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dense | tuple[Dense | None, ...]:
    """The results of `op` for each sample alone, [B, *shape] each.

    Operands that are `PerSampleTensor` are mapped, all others are the same for every sample. At least one is mapped.
    """
    call = _Call()
    template = {"op": str(op), "args": [call.encode(x) for x in args], "kwargs": call.encode(kwargs)}
    results = torch.ops.dpgraph.map_over_samples(json.dumps(template), call.stacks, call.shared, call.sizes)
    returns = op._schema.returns
    if len(returns) == 1 and str(returns[0].type) == "Tensor":
        return Dense(results[0])
    return tuple(Dense(g) if g.numel() else None for g in results)


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of a call, taken apart into a template without tensors and the tensors and sizes it refers to."""

    stacks: list[Tensor] = field(default_factory=list)
    shared: list[Tensor] = field(default_factory=list)
    sizes: list[Any] = field(default_factory=list)

    def encode(self, x: Any) -> Any:
        match x:
            case PerSampleTensor(stack=stack):
                self.stacks.append(stack)
                return {"stack": len(self.stacks) - 1}
            case Tensor():
                self.shared.append(x)
                return {"shared": len(self.shared) - 1}
            case torch.SymInt():
                self.sizes.append(x)
                return {"size": len(self.sizes) - 1}
            case list() | tuple():
                return [self.encode(item) for item in x]
            case dict():
                return {"dict": {key: self.encode(item) for key, item in x.items()}}
            case torch.device():
                return {"device": str(x)}
            case torch.dtype() | torch.memory_format() | torch.layout():
                return {"torch": str(x).removeprefix("torch.")}
            case None | bool() | int() | float() | str():
                return x
            case _:
                raise TypeError(f"an argument of type {type(x).__name__} cannot be mapped over the samples")


def _decode(x: Any, stacks: list[Tensor], shared: list[Tensor], sizes: list[Any]) -> Any:
    def decode(x: Any) -> Any:
        match x:
            case {"stack": int(i)}:
                return stacks[i]
            case {"shared": int(i)}:
                return shared[i]
            case {"size": int(i)}:
                return sizes[i]
            case {"dict": dict(items)}:
                return {key: decode(item) for key, item in items.items()}
            case {"device": str(name)}:
                return torch.device(name)
            case {"torch": str(name)}:
                return getattr(torch, name)
            case list():
                return [decode(item) for item in x]
            case _:
                return x

    return decode(x)


def _one_sample(template: str, shared: list[Tensor], sizes: list[Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The call as a function of one sample's tensors; a result that is missing is an empty tensor."""
    call = json.loads(template)
    namespace, name, overload = call["op"].split(".")
    op = getattr(getattr(getattr(torch.ops, namespace), name), overload)

    def one(*slices: Tensor) -> tuple[Tensor, ...]:
        args = _decode(call["args"], list(slices), shared, sizes)
        results = op(*args, **_decode(call["kwargs"], list(slices), shared, sizes))
        several = results if isinstance(results, (tuple, list)) else (results,)
        return tuple(slices[0].new_empty(0) if x is None else x for x in several)

    return one


@torch.library.custom_op(
    "dpgraph::map_over_samples",
    mutates_args=(),
    schema="(str template, Tensor[] stacks, Tensor[] shared, SymInt[] sizes) -> Tensor[]",
)
def _map_over_samples(template: str, stacks: list[Tensor], shared: list[Tensor], sizes: list[int]) -> list[Tensor]:
    one = _one_sample(template, shared, sizes)
    # in the strides that the fake results have
    return [x.clone(memory_format=torch.contiguous_format) for x in torch.func.vmap(one)(*stacks)]


@_map_over_samples.register_fake
def _(template: str, stacks: list[Tensor], shared: list[Tensor], sizes: list[Any]) -> list[Tensor]:
    results = _one_sample(template, shared, sizes)(*(x[0] for x in stacks))
    return [x.new_empty(stacks[0].shape[0], *x.shape) for x in results]
