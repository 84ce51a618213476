"""Plan the memory of a model without running it, and without room for it."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.api import dp_compile
from dpgraph.capture.arguments import Arguments
from dpgraph.errors import ArgumentError
from dpgraph.freezing import required_by_author, set_requires_grad
from dpgraph.mechanism import Mode
from dpgraph.options import CompileOptions, check_options
from dpgraph.report.report import Report
from dpgraph.torch_compat import FakeTensorMode

__all__ = ["plan"]


def plan(
    model: nn.Module,
    inputs: tuple[Any, ...] | dict[str, Any],
    mode: Mode = "bitfit",
    *,
    device: str | torch.device = "cpu",
    options: CompileOptions | None = None,
    **arguments: Any,
) -> Report:
    """The report of a model that may be too big for the machine: nothing is allocated, nothing is run.

    Args:
        model: on the meta device, or any other; it is not changed.
        inputs: arguments of a call, as `example_inputs` of `dp_compile`; tensors of any device, meta too.
        mode: see `dp_compile`.
        device: where the model would run. Kernels of attention and the like are chosen for it.
        options: see `dp_compile`.
        **arguments: the other arguments of `dp_compile`.

    Returns:
        A report whose `memory`, `alternatives` and `largest_batch` are predictions; it has no `measured`.

    Raises:
        ArgumentError: the device cannot be planned for on this machine, or an argument is unusable.
        CaptureError, UnsoundProgramError, UnsupportedProgramError: the program is refused.

    >>> with torch.device("meta"):
    ...     model, x = nn.Linear(1000, 1000), torch.empty(64, 1000)
    >>> planned = plan(model, (x,), mode="full", options=CompileOptions(backend="eager"))
    >>> planned.memory.parameters, planned.gradients.compiled
    (4004000, 4004000)
    """
    given, where = Arguments.of_call(inputs), torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(
            f"there is no device {str(where)!r} on this machine",
            why="which kernels a model takes there is decided by asking the device",
            fix='plan on a machine that has one, or for device="cpu"',
        )
    chosen = check_options(options)
    fakes = FakeTensorMode()
    known: dict[int, Tensor] = {}

    def fake(x: Any) -> Any:
        if isinstance(x, Tensor) and id(x) not in known:
            with fakes:
                made = torch.empty_strided(tuple(x.shape), x.stride(), dtype=x.dtype, device=where)
            known[id(x)] = _parameter(made, x) if isinstance(x, nn.Parameter) else made
        return known[id(x)] if isinstance(x, Tensor) else x

    memo = {id(x): fake(x) for x in (*model.parameters(), *model.buffers())}
    planned = copy.deepcopy(model, memo)
    private = dp_compile(planned, mode, options=replace(chosen, backend="eager"), **arguments)
    with fakes:
        call = given.map(fake)
        private(*call.args, **call.kwargs)
    return private.report.under(chosen)


def _parameter(made: Tensor, like: nn.Parameter) -> nn.Parameter:
    parameter = nn.Parameter(made)
    set_requires_grad(parameter, like.requires_grad, authored=required_by_author(like))
    return parameter
