"""The way of gradients from the graph of one call into `p.grad`.

Between the parameters and the compiled graph stands one node of autograd. All gradients of a call arrive in it at
once, and it adds them to `p.grad` itself: so it is known which gradients are ours, a call delivers once, and whatever
autograd brings to a parameter by itself is somebody else's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from dpgraph.deliveries import Origin, first_nonzero, origin, record_of, undo
from dpgraph.errors import ArgumentError, Place
from dpgraph.lower.guard import Guard, refuse_foreign_hooks
from dpgraph.mechanism import Mechanism
from dpgraph.torch_compat import backward_under_way, will_accumulate
from dpgraph.unrounded import found_unrounded

__all__ = ["Delivery"]


@dataclass
class Delivery:
    """What the backward of one call brings.

    Attributes:
        names: id of a parameter -> its name.
        probe: the call's probe, whose gradient are the norms.
        num_samples: of the call.
        mechanism: of the call.
        guard: lives as long as a backward may still come.
        is_done: whether it came.
    """

    names: Mapping[int, str]
    probe: Tensor
    num_samples: int
    mechanism: Mechanism
    guard: Guard
    is_done: bool = False

    def through(self, inputs: Sequence[Any], places: Sequence[int]) -> list[Any]:
        """The inputs of a graph, in which those at `places` that require grad deliver when the backward comes."""
        chosen = [i for i in places if inputs[i].requires_grad]
        aliases = _Deliver.apply(self, chosen, *(inputs[i] for i in chosen))  # type: ignore[no-untyped-call]
        replaced = list(inputs)
        for i, alias in zip(chosen, aliases, strict=True):
            replaced[i] = alias
        return replaced

    def take(self, arrived: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add gradients to those of their parameters, or change nothing.

        Args:
            arrived: leaves, each with its gradient; the probe may be among them.

        Raises:
            ArgumentError: they must not be added.
        """
        trained = [(p, g) for p, g in arrived if p is not self.probe]
        try:
            self._check([p for p, _ in trained])
        except ArgumentError:
            undo(backward_under_way())
            raise
        self.is_done = True
        stealable = _alone_in_memory([g for _, g in trained])
        with torch.no_grad():
            for p, g in trained:
                was_empty = p.grad is None
                added = _add(p, g, steal=id(g) in stealable)
                record_of(p).note_delivery(
                    added,
                    backward_under_way(),
                    was_empty=was_empty,
                    num_samples=self.num_samples,
                    sums=self.mechanism.sums,
                    sensitivity=self.mechanism.sensitivity,
                )
            for p, g in arrived:
                if p is self.probe:
                    p.grad = g.detach()

    def _check(self, parameters: Sequence[Tensor]) -> None:
        if self.is_done:
            raise ArgumentError(
                "a second backward came through one call of the module",
                why="the samples of the call would be added twice, and count twice of what the noise hides",
                fix="add the losses of the call up and call backward() once, or call the module again",
            )
        if parameters and torch.is_grad_enabled():
            raise ArgumentError(
                "the backward was asked for a graph of itself (create_graph=True)",
                why="clipped gradients have none, and what is computed from it would lack their part in silence",
                fix="call backward() without create_graph; for a penalty on the inputs' gradient, "
                "torch.autograd.grad(..., inputs, create_graph=True) on the model given",
            )
        rewritten = []
        for p in parameters:
            refuse_foreign_hooks(self._name(p), p)
            match origin(p):
                case Origin.STALE:
                    raise self._stale(p)
                case Origin.REWRITTEN | Origin.FOREIGN:
                    rewritten.append(p)
                case _:
                    pass
        first = first_nonzero([p.grad for p in rewritten if p.grad is not None])
        if first is not None:
            p = rewritten[first]
            raise self._stale(p) if origin(p) is Origin.REWRITTEN else self._foreign(p)

    def _name(self, parameter: Tensor) -> str:
        return self.names.get(id(parameter), f"of shape {list(parameter.shape)}")

    def _stale(self, parameter: Tensor) -> ArgumentError:
        return ArgumentError(
            "a gradient is still the one of the step before",
            place=Place(parameter=self._name(parameter)),
            why="it holds that step's noise and is divided already; both would happen twice",
            fix="call optimizer.zero_grad() after each step",
        )

    def _foreign(self, parameter: Tensor) -> ArgumentError:
        return ArgumentError(
            "a trained parameter holds a gradient that did not come from a private graph",
            place=Place(parameter=self._name(parameter)),
            why="that gradient is not clipped, and in the sum nothing would tell it from those that are",
            fix="call zero_grad() before the backward of the private module; change a gradient after it, and in place",
        )


class _Deliver(torch.autograd.Function):
    """Parameters on their way into a graph; their gradients on the way out."""

    @staticmethod
    def forward(ctx: Any, delivery: Delivery, places: Sequence[int], *given: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.delivery, ctx.places, ctx.given = delivery, places, given
        return tuple(x.detach() for x in given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """None for every leaf whose gradient was added here; other tensors get theirs from autograd."""
        real: object = ctx
        if not isinstance(real, BackwardCFunction):
            raise ArgumentError(
                "the backward is itself compiled (torch._dynamo.config.compiled_autograd)",
                why="what adds gradients up there does not tell those of private graphs from others",
                fix="leave compiled_autograd off: the backward of the private module is compiled already",
            )
        delivery: Delivery = ctx.delivery
        given: tuple[Tensor, ...] = ctx.given
        apart = found_unrounded(next((g for x, g in zip(given, gradients, strict=True) if x is delivery.probe), None))
        returned = [apart.get(place, g) for place, g in zip(ctx.places, gradients, strict=True)]
        arrived: list[tuple[Tensor, Tensor]] = []
        for i, (x, g, (node, _)) in enumerate(zip(given, returned, ctx.next_functions, strict=True)):
            if g is None or getattr(node, "variable", None) is not x:
                continue
            if x is delivery.probe or will_accumulate(node):
                arrived.append((x, g))
                returned[i] = None
        delivery.take(arrived)
        return None, None, *returned


def _alone_in_memory(gradients: Sequence[Tensor]) -> set[int]:
    """Ids of those that have all of a memory that none of the others has a part of."""
    memory = [g.untyped_storage().data_ptr() for g in gradients]
    owners = Counter(memory)
    return {
        id(g)
        for g, m in zip(gradients, memory, strict=True)
        if owners[m] == 1 and g.untyped_storage().nbytes() == g.numel() * g.element_size()
    }


def _add(parameter: Tensor, gradient: Tensor, *, steal: bool) -> Tensor:
    """Add up, in the parameter's own layout, as autograd does; what has memory of its own is taken as it is.

    A gradient more exact than its parameter stays so. Returns the sum.
    """
    before = parameter.grad
    if gradient.dtype != parameter.dtype:
        parameter.grad_dtype = None  # any
    if before is not None and before.dtype != gradient.dtype:
        before = parameter.grad = before.to(gradient.dtype)
    if before is not None:
        before.add_(gradient)
    elif steal and (
        gradient.stride() == parameter.stride() or (parameter.is_contiguous() and gradient.is_contiguous())
    ):
        parameter.grad = gradient.detach()
    else:
        parameter.grad = torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)
    assert parameter.grad is not None
    return parameter.grad
