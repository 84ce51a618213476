"""The arguments of one call."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dpgraph.capture.containers import find_leaves, map_leaves
from dpgraph.errors import ArgumentError

__all__ = ["Arguments"]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a call passes.

    Attributes:
        args: to the model, by position.
        kwargs: to the model, by name.
        targets: to the loss behind it, if there is one.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: tuple[Any, ...] = ()

    @classmethod
    def of_call(cls, inputs: object, targets: tuple[Any, ...] = ()) -> "Arguments":
        """Those of a call that is written down: a tuple by position, or a mapping by name.

        Raises:
            ArgumentError: it is neither.
        """
        if isinstance(inputs, Mapping):
            return cls((), dict(inputs), targets)
        if isinstance(inputs, (tuple, list)):
            return cls(tuple(inputs), {}, targets)
        raise ArgumentError(
            f"the arguments of a call are given as a {type(inputs).__name__}",
            why="the model may take several arguments, and which tensors those are must be plain",
            fix='pass a tuple, (x,), or a mapping by name, {"x": x}',
        )

    def check_fit(self, signature: inspect.Signature) -> None:
        """Pass if a model of this signature can be called like that.

        Raises:
            ArgumentError: it cannot.
        """
        try:
            signature.bind(*self.args, **self.kwargs)
        except TypeError as error:
            raise ArgumentError(
                f"the model cannot be called like that: {error}",
                why="each argument is looked up by the name that forward gives it",
                fix=f"pass what its forward takes: {', '.join(map(str, signature.parameters.values()))}",
            ) from None

    def map(self, function: Callable[[Any], Any]) -> "Arguments":
        """The same with each leaf of each argument replaced; they may be containers in any nesting."""
        return Arguments(*map_leaves(function, self._tree))

    def leaves(self) -> list[Any]:
        """All leaves, in the order of `map`."""
        return find_leaves(self._tree)

    @property
    def _tree(self) -> tuple[Any, ...]:
        return self.args, dict(self.kwargs), self.targets

    def named(self, signature: inspect.Signature) -> list[tuple[str, Any]]:
        """Every argument with its name, those by position first.

        What a variable positional parameter takes is called `args[i]`. A name may come twice: a model may call an
        argument of its own `targets`.

        Args:
            signature: of the model's forward.
        """
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [name for name, p in signature.parameters.items() if p.kind in by_position]
        names += [f"args[{i}]" for i in range(len(names), len(self.args))]
        behind = [("targets", self.targets)] if self.targets else []
        return [*zip(names, self.args, strict=False), *self.kwargs.items(), *behind]
