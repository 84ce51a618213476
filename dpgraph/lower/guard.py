"""Notice what reaches the gradient of a trained parameter past the private graph.

Gradients of our graphs are added to `p.grad` by `lower.delivery`, and reach autograd as None. So a hook on the
parameter sees a gradient only if it comes from elsewhere: from the model itself, from a part of it that is called
alone, from a parameter that also stands outside the call. Such a gradient is not clipped. By itself it is no error, for
the model may be trained without privacy too; `privacy.noise` refuses to step with it. It is one where it would be
added to ours.
"""

import weakref
from collections.abc import Iterable, Mapping
from weakref import WeakSet

from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle, unserializable_hook

from dpgraph.deliveries import Origin, Record, first_nonzero, origin, record_of, undo
from dpgraph.errors import ArgumentError, Place
from dpgraph.torch_compat import backward_under_way, will_accumulate

__all__ = ["Guard", "refuse_foreign_hooks"]


class Guard:
    """Watches the parameters that one module trains, until it is itself collected."""

    def __init__(self) -> None:
        self._watches: WeakSet[Watch] = WeakSet()
        weakref.finalize(self, _unhook, self._watches).atexit = False

    def cover(self, parameters: Mapping[str, Tensor], *, whole: bool) -> None:
        """Watch these leaves; if they are the whole of what is trained, no longer those that they replace."""
        watches = [_watch_on(p) or _watch(name, p) for name, p in parameters.items()]
        for watch in watches:
            if watch not in self._watches:
                self._watches.add(watch)
                watch.record.guards.add(self)
        if whole and len(watches) != len(self._watches):
            replaced = set(self._watches).difference(watches)
            for watch in replaced:
                self._watches.discard(watch)
                watch.record.guards.discard(self)
            _unhook(replaced)


class Watch:
    """The hook on a parameter that some module trains."""

    def __init__(self, name: str, record: Record) -> None:
        self.name = name
        self.record = record
        self.handle: RemovableHandle | None = None

    def __call__(self, gradient: Tensor | None) -> None:
        """Raise if a gradient from elsewhere is about to be added to ours.

        Raises:
            ArgumentError: it is. Parameters without gradient before this backward are without one again.
        """
        parameter = self.record.parameter
        if gradient is None or parameter is None or origin(parameter) is not Origin.DELIVERED:
            return
        assert parameter.grad is not None, "a gradient that was delivered is there"
        if not will_accumulate(get_gradient_edge(parameter).node) or first_nonzero([gradient.detach()]) is None:
            return
        if first_nonzero([parameter.grad]) is None:  # cleared by zero_grad(set_to_none=False)
            self.record.forget()
            return
        undo(backward_under_way())
        raise ArgumentError(
            "a trained parameter got a gradient past the private graph",
            place=Place(parameter=self.name),
            why="that gradient is not clipped, and in the sum nothing would tell it from those that are",
            fix="call the module that dp_compile returned, not parts of it or the model given; compute what needs "
            "the parameter inside forward or loss_fn; for weight decay use the optimizer's; train without privacy only "
            "after zero_grad()",
        )


def refuse_foreign_hooks(name: str, parameter: Tensor) -> None:
    """Pass if nobody else has a hook on the parameter.

    Raises:
        ArgumentError: somebody has.
    """
    hooks = parameter._backward_hooks
    tensor_hooks = () if hooks is None else [h for h in hooks.values() if not isinstance(h, Watch)]
    if tensor_hooks or parameter._post_accumulate_grad_hooks:
        raise ArgumentError(
            "a trained parameter has a hook",
            place=Place(parameter=name),
            why="a hook may change a gradient after it was clipped; and since gradients of the private graph are added "
            "up as they leave it, the hook would not see them",
            fix="remove the hook; change p.grad in place after loss.backward(), and before the optimizer's step, if "
            "you know what that does to the sensitivity",
        )


def _watch_on(parameter: Tensor) -> Watch | None:
    hooks = parameter._backward_hooks
    return None if hooks is None else next((h for h in hooks.values() if isinstance(h, Watch)), None)


def _watch(name: str, parameter: Tensor) -> Watch:
    watch = Watch(name, record_of(parameter))
    unserializable_hook(watch)
    watch.handle = parameter.register_hook(watch)
    return watch


def _unhook(watches: Iterable[Watch]) -> None:
    """Take the hooks off the parameters that no module trains any more."""
    for watch in watches:
        if not watch.record.is_guarded and watch.handle is not None:
            watch.handle.remove()
            watch.record.note_unwatched()
