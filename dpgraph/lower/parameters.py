"""What a module knows of the model's parameters from the time when it was compiled, looked up again at every call."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from dpgraph.errors import ArgumentError, Place
from dpgraph.lower.guard import Guard, refuse_foreign_hooks
from dpgraph.torch_compat import FakeTensor

__all__ = ["KnownParameters"]

AGAIN = "call dp_compile again on the model given"


@dataclass(frozen=True, slots=True)
class KnownParameters:
    """Which parameters are trained, and which names stood for one parameter.

    Attributes:
        trained: names of the trained parameters; of several names of one, the first.
        first_names: every name -> the first of those that stood for the same parameter.
    """

    trained: frozenset[str]
    first_names: Mapping[str, str]

    @classmethod
    def of(cls, model: nn.Module, trained: Iterable[str]) -> "KnownParameters":
        """Those of a model as it is compiled."""
        firsts: dict[int, str] = {}
        named = model.named_parameters(remove_duplicate=False)
        return cls(frozenset(trained), {name: firsts.setdefault(id(p), name) for name, p in named})

    def look_up(self, model: nn.Module, guard: Guard) -> dict[int, str]:
        """Names of the model's parameters by id; the trained ones are watched from now on.

        Raises:
            ArgumentError: others require grad than when the model was compiled, two parameters became one, or a
                trained one is gone or has a hook.
        """
        names: dict[int, str] = {}
        memory: dict[int, str] = {}
        trained: dict[str, Tensor] = {}
        frozen: list[str] = []
        for name, p in model.named_parameters(remove_duplicate=False):
            first = names.setdefault(id(p), name)
            if first != name:
                self._check_tie(first, name)
                continue
            if name not in self.trained:
                _refuse_unfrozen(name, p)
            elif p.requires_grad:
                trained[name] = p
                _refuse_shared_memory(memory, name, p)
            else:
                frozen.append(name)
        if frozen and trained:
            raise _frozen(frozen[0])
        if gone := self.trained.difference(trained, frozen):
            raise _gone(min(gone))
        leaves = {name: p for name, p in trained.items() if p.is_leaf}
        for name, leaf in leaves.items():
            refuse_foreign_hooks(name, leaf)
        guard.cover(leaves, whole=bool(leaves) and len(leaves) == len(trained))
        return names

    def _check_tie(self, first: str, name: str) -> None:
        before = self.first_names.get(name), self.first_names.get(first)
        if (before[0] is None or before[0] != before[1]) and {name, first} & self.trained:
            raise _tied(first, name)


def _refuse_unfrozen(name: str, p: Tensor) -> None:
    """A parameter that was unfrozen later would stay as it is in silence."""
    if p.requires_grad:
        raise ArgumentError(
            f"parameter {name!r} requires grad but is not among the trained ones",
            why="what is trained is fixed when the model is compiled; its gradient would be missing in silence",
            fix=f"{AGAIN}, with also_train or another mode",
        )


def _refuse_shared_memory(memory: dict[int, str], name: str, p: Tensor) -> None:
    if p.is_meta or isinstance(p, FakeTensor) or p.numel() == 0:
        return
    other = memory.setdefault(p.data_ptr(), name)
    if other != name:
        raise _tied(other, name)


def _tied(first: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"parameters {first!r} and {name!r} became one after the model was compiled",
        place=Place(parameter=name),
        why="their parts of a sample's gradient are clipped as if they were two, and their sum may exceed the bound",
        fix=AGAIN,
    )


def _gone(name: str) -> ArgumentError:
    return ArgumentError(
        f"parameter {name!r} was trained when the model was compiled and is none of the model's now",
        place=Place(parameter=name),
        why="what is trained, and what a sample's gradient is bounded over, is fixed when the model is compiled",
        fix=AGAIN,
    )


def _frozen(name: str) -> ArgumentError:
    return ArgumentError(
        f"parameter {name!r} was trained when the model was compiled and is frozen now",
        place=Place(parameter=name),
        why="its part of a sample's gradient would still count in the norm, and be clipped away from the others'",
        fix=f"{AGAIN} with what shall be trained now, or set requires_grad_(True)",
    )
