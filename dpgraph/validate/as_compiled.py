"""Run a compiled graph forward and backward on given inputs, leaving the user's tensors as they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dpgraph.capture.joint import Parameter
from dpgraph.unrounded import found_unrounded
from dpgraph.validate.interface import Interface
from dpgraph.validate.samples import Captured, copy_memory

__all__ = ["Observed", "run_compiled"]

TANGENTS = 20_011


@dataclass(frozen=True, slots=True)
class Observed:
    """What a compiled graph made of inputs.

    Attributes:
        outputs: tensors that it returned, by position.
        gradients: of each input that requires one, by position; None where there is none.
        after_forward: each tensor that is no parameter as it was left by the forward, by position of the input.
        after_backward: the same after the backward.
        tangents: the gradients of the outputs that were put in, by the joint graph's placeholder.
        written: positions of parameters that are not any more what they were.
    """

    outputs: Mapping[int, Tensor]
    gradients: Mapping[int, Tensor | None]
    after_forward: Mapping[int, Tensor]
    after_backward: Mapping[int, Tensor]
    tangents: Mapping[str, Tensor]
    written: tuple[int, ...]


def run_compiled(
    compiled: Callable[..., Any], captured: Captured, interface: Interface, inputs: Sequence[Any], rows: int
) -> Observed:
    """A forward and a backward with fixed random tangents of a norm of about one a sample.

    Parameters go in as aliases, so that no gradient lands in them and no hook runs; all else as copies, which may be
    written.
    """
    before = _checksums(captured, inputs)
    given = [_stand_in(x, isinstance(r, Parameter)) for x, r in zip(inputs, captured.roles, strict=True)]
    with (
        torch.enable_grad(),
        saved_tensors_hooks(_as_it_is, _as_it_is),
    ):  # and none of the user's, such as a checkpoint's
        returned = compiled(*given)
        own = {i for i, r in enumerate(captured.roles) if not isinstance(r, Parameter) and isinstance(given[i], Tensor)}
        after_forward = {i: given[i].detach().clone() for i in own}
        outputs = {i: x for i, x in enumerate(returned) if isinstance(x, Tensor)}
        tangents, weighed = _make_tangents(interface, outputs, rows)
        leaves = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
        found = torch.autograd.grad(
            [outputs[i] for i in weighed],
            [given[i] for i in leaves],
            list(weighed.values()),
            allow_unused=True,
        )
    gradients = dict(zip(leaves, found, strict=True))
    return Observed(
        outputs={i: x.detach() for i, x in outputs.items()},
        gradients={**gradients, **found_unrounded(gradients[captured.probe])},
        after_forward=after_forward,
        after_backward={i: given[i].detach() for i in own},
        tangents=tangents,
        written=tuple(i for i, checksum in _checksums(captured, inputs).items() if checksum != before[i]),
    )


def _as_it_is(x: Any) -> Any:
    return x


INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _checksums(captured: Captured, inputs: Sequence[Any]) -> dict[int, int]:
    """A sum of the bits of each parameter, by position."""
    return {
        i: int(x.detach().reshape(-1).view(INTEGERS[x.element_size()]).sum())
        for i, (x, role) in enumerate(zip(inputs, captured.roles, strict=True))
        if isinstance(role, Parameter) and x.element_size() in INTEGERS
    }


def _stand_in(x: Any, is_parameter: bool) -> Any:
    if not isinstance(x, Tensor):
        return x
    made = x.detach() if is_parameter else copy_memory(x)
    return made.requires_grad_(x.requires_grad)


def _make_tangents(
    interface: Interface, outputs: Mapping[int, Tensor], rows: int
) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
    """Tangents by the placeholder that takes them, and by the output that they are put in at.

    Where several outputs are views of one value, the compiled graph gets that value's tangent from theirs.
    """
    weighed: dict[int, Tensor] = {}
    taken: dict[str, Tensor] = {}
    for name, of in interface.tangents.items():
        if of is None or of.output not in outputs or not outputs[of.output].requires_grad:
            continue
        base = outputs[of.output]._base if of.base else None
        if base is None:
            weighed[of.output] = taken[name] = _tangent(outputs[of.output], rows, of.output)
            continue
        views = {i: _tangent(x, rows, i) for i, x in outputs.items() if x._base is base and x.requires_grad}
        weighed.update(views)
        (taken[name],) = torch.autograd.grad([outputs[i] for i in views], base, list(views.values()), retain_graph=True)
    return taken, weighed


def _tangent(x: Tensor, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(TANGENTS + seed)
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.promote_types(x.dtype, torch.float32))
    scaled = drawn * (rows / max(x.numel(), 1)) ** 0.5
    made = torch.empty_like(x, memory_format=torch.preserve_format)
    with torch.no_grad():
        made.copy_(scaled)
    return made.detach()
