"""Per-sample gradients of any op: the op itself, mapped over the samples."""

from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.registry import PerSampleTensor
from dpgraph.torch_compat import tree_flatten, tree_unflatten

__all__ = ["map_over_samples"]


def map_over_samples(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dense | tuple[Dense | None, ...]:
    """The results of `op` for each sample alone, [B, *shape] each, through `torch.func.vmap`.

    Operands that are `PerSampleTensor` are mapped, all others are the same for every sample.
    """
    leaves, spec = tree_flatten((args, kwargs))
    mapped = [i for i, x in enumerate(leaves) if isinstance(x, PerSampleTensor)]

    def one(*slices: Tensor) -> Any:
        filled = list(leaves)
        for i, x in zip(mapped, slices, strict=True):
            filled[i] = x
        one_args, one_kwargs = tree_unflatten(filled, spec)
        result = op(*one_args, **one_kwargs)
        return tuple(result) if isinstance(result, (tuple, list)) else result

    stacks = torch.func.vmap(one, randomness="error")(*(leaves[i].stack for i in mapped))
    if isinstance(stacks, tuple):
        return tuple(Dense(g) if isinstance(g, Tensor) else None for g in stacks)
    return Dense(stacks)
