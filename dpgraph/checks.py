"""Refuse, before anything is captured, models whose parameters are not what is trained in the end."""

from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dpgraph.errors import ArgumentError, Place, UnsupportedProgramError

__all__ = ["check_initialised", "check_reparametrised"]

# The old reparametrisations: how they are called, and what they make of a parameter's name.
HOOKS = {SpectralNorm: ("spectral_norm", ("_orig",)), WeightNorm: ("weight_norm", ("_g", "_v"))}


def check_initialised(model: nn.Module) -> None:
    """Pass if every parameter and buffer has a shape.

    Raises:
        ArgumentError: one has none yet, as in a lazy module that saw no batch.
    """
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(x):
            raise ArgumentError(
                f"{name!r} has no shape yet: it belongs to a lazy module that saw no batch",
                place=Place(parameter=name),
                why="what is trained, and what its gradient is bounded over, is fixed when the model is compiled",
                fix="run one batch first, which may be of made-up numbers: with torch.no_grad(): model(x)",
            )


def check_reparametrised(model: nn.Module, trained: Iterable[str]) -> None:
    """Pass if no trained parameter goes through a hook of `torch.nn.utils.spectral_norm` or `weight_norm`.

    Such a hook assigns the weight to an attribute before each call, where it outlives the graph as one of its outputs.

    Raises:
        UnsupportedProgramError: one does.
    """
    names = set(trained)
    for name, function in _through_hooks(model):
        if name in names:
            raise UnsupportedProgramError(
                f"parameter {name!r} is trained through a hook of torch.nn.utils.{function}",
                place=Place(parameter=name),
                why="the hook leaves the weight that it computes on the module, from where a gradient could come to "
                "the parameter that no sample owns",
                fix=f"use torch.nn.utils.parametrizations.{function}, which computes the same within the forward",
            )


def _through_hooks(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Parameters that a hook makes a weight of, with the function that put it there."""
    for prefix, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if type(hook) in HOOKS:
                function, endings = HOOKS[type(hook)]
                for ending in endings:
                    yield f"{prefix}.{hook.name}{ending}".removeprefix("."), function
