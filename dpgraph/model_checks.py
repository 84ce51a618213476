"""Refuse, before anything is captured, what is no model, or one whose parameters are not what is trained in the end."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dpgraph.errors import ArgumentError, Place, UnsupportedProgramError

__all__ = ["check_loss", "check_model", "check_reparametrised"]

# The old reparametrisations: how they are called, and what they make of a parameter's name.
HOOKS = {SpectralNorm: ("spectral_norm", ("_orig",)), WeightNorm: ("weight_norm", ("_g", "_v"))}


def check_model(model: object) -> None:
    """Pass if the model is a module of plain parameters and buffers, each of which has a shape.

    Raises:
        ArgumentError: it is something else, or lazy.
        UnsupportedProgramError: a parameter is made of several tensors.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"the model is a {type(model).__name__}, not an nn.Module",
            why="the parameters of the module are what is trained, and what one sample's gradient is bounded over",
            fix="pass the nn.Module itself, before torch.compile; wrap a function in a Module that owns its parameters",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError(
            "the model is a ScriptModule",
            why="its code is not Python any more, and cannot be traced into one graph with its backward",
            fix="pass the nn.Module that torch.jit.script or torch.jit.trace was given",
        )
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if hasattr(x, "__tensor_flatten__"):
            raise UnsupportedProgramError(
                f"{name!r} is a {type(x).__name__}, a tensor that is made of others",
                why="only of plain tensors is it known which element belongs to which sample",
                fix="load the model with plain parameters: not quantised into wrappers, not distributed",
            )
    _check_initialised(model)


def check_loss(model: nn.Module, loss_fn: object) -> None:
    """Pass if a loss has no parameters of its own to train.

    Raises:
        ArgumentError: it has.
    """
    own = {id(p) for p in model.parameters()}
    for name, p in loss_fn.named_parameters() if isinstance(loss_fn, nn.Module) else ():
        if p.requires_grad and id(p) not in own:
            raise ArgumentError(
                f"parameter {name!r} of loss_fn requires grad but is none of the model's",
                why="what is trained, and bounded, are the parameters of the model; this one would stay as it is",
                fix="make it a parameter of a module around the model, or set requires_grad_(False)",
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


def _check_initialised(model: nn.Module) -> None:
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(x):
            raise ArgumentError(
                f"{name!r} has no shape yet: it belongs to a lazy module that saw no batch",
                place=Place(parameter=name),
                why="what is trained, and what its gradient is bounded over, is fixed when the model is compiled",
                fix="run one batch first, which may be of made-up numbers: with torch.no_grad(): model(x)",
            )


def _through_hooks(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Parameters that a hook makes a weight of, with the function that put it there."""
    for prefix, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if type(hook) in HOOKS:
                function, endings = HOOKS[type(hook)]
                for ending in endings:
                    yield f"{prefix}.{hook.name}{ending}".removeprefix("."), function
