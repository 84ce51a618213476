"""A class for one module, which looks from outside as the model's does.

Python reads `m[0]` and `len(m)` off the class and not off the instance, and trainers ask for the signature of `forward`
to see which columns of a data set the model takes. What every model would have, such as `forward(*args, **kwargs)`,
tells them nothing.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from dpgraph.lower.capture_errors import refuse_detours

__all__ = ["class_like"]

# What makes a container of `nn.Sequential`, `nn.ModuleList` and `nn.ModuleDict`, to read from it.
CONTAINER_METHODS = ("__contains__", "__getitem__", "__iter__", "__len__", "__reversed__")

Module = TypeVar("Module", bound=nn.Module)


def class_like(base: type[Module], model: nn.Module, *, takes_targets: bool) -> type[Module]:
    """A subclass of `base` with the signature of `model.forward`, and with the container's methods that it has.

    Args:
        base: has an attribute `original_module`.
        model: what an instance stands for.
        takes_targets: whether `forward` has an argument `targets` besides those of the model.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            refuse_detours()  # a tracer may hand in one object for all arguments, which cannot be passed on
        return base.forward(self, *args, **kwargs)

    forward.__doc__ = base.forward.__doc__
    forward.__signature__ = _signature(model, takes_targets)  # type: ignore[attr-defined]
    members = {name: _of_model(name) for name in CONTAINER_METHODS if hasattr(type(model), name)}
    about = {"__doc__": base.__doc__, "__module__": base.__module__}
    return type(base.__name__, (base,), {**about, "forward": forward, **members})


def _signature(model: nn.Module, takes_targets: bool) -> inspect.Signature:
    own = inspect.signature(model.forward)
    parameters = list(own.parameters.values())
    if takes_targets and "targets" not in own.parameters:
        rest = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
        targets = inspect.Parameter("targets", inspect.Parameter.KEYWORD_ONLY, default=())
        parameters.insert(len(parameters) - rest, targets)
    first = "self" if "self" not in own.parameters else "dp_module"
    return own.replace(parameters=[inspect.Parameter(first, inspect.Parameter.POSITIONAL_ONLY), *parameters])


def _of_model(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        return getattr(self.original_module, name)(*args)

    method.__name__ = name
    return method
