"""Hold that no two parameters lie in the same memory; parts of one buffer that do not overlap are parameters apart.

cuDNN wants the weights of an LSTM or a GRU in one piece, Megatron and optimizers that work on flat memory those of a
whole model: each parameter is then a view of one buffer.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor, nn

from dpgraph.errors import ArgumentError
from dpgraph.torch_compat import FakeTensor, storage_of

__all__ = ["check_memory", "overlap"]


def check_memory(model: nn.Module, trained: Collection[str]) -> None:
    """Pass if no element of a trained parameter is one of another parameter too.

    Raises:
        ArgumentError: two parameters share memory, and an update of the one would change the other.
    """
    chosen = set(trained)
    by_storage: dict[tuple[object, int], list[_Place]] = {}
    for name, parameter in model.named_parameters():
        if parameter.numel() == 0 or parameter.is_meta or isinstance(parameter, FakeTensor):
            continue
        key = (parameter.device, parameter.untyped_storage().data_ptr())
        by_storage.setdefault(key, []).append(_Place(name, parameter))
    for places in by_storage.values():
        for a, b in _touching(places):
            if chosen & {a.name, b.name} and _overlap(a, b):
                raise ArgumentError(
                    f"parameters {a.name!r} and {b.name!r} share memory but are two parameters",
                    why="an update of the one changes the other, and its gradient leaves the clipped norm incomplete",
                    fix="tie them by assigning the same Parameter object to both, or clone one of them",
                )


def overlap(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors have a byte of memory in common."""
    if x.device != y.device or x.numel() == 0 or y.numel() == 0 or storage_of(x) != storage_of(y):
        return False
    first, second = _Place("", x), _Place("", y)
    return first.first < second.end and second.first < first.end and _overlap(first, second)


@dataclass(frozen=True, slots=True)
class _Place:
    """A parameter with the bytes of its storage that it lies within."""

    name: str
    parameter: Tensor

    @property
    def first(self) -> int:
        return int(self.parameter.storage_offset()) * self.parameter.element_size()

    @property
    def end(self) -> int:
        x = self.parameter
        last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        return self.first + (last + 1) * x.element_size()


def _touching(places: list[_Place]) -> Iterator[tuple[_Place, _Place]]:
    """Pairs whose ranges of bytes have one in common."""
    in_order = sorted(places, key=lambda place: place.first)
    if all(a.end <= b.first for a, b in pairwise(in_order)):
        return
    yield from ((a, b) for a, b in combinations(in_order, 2) if b.first < a.end)


def _overlap(a: _Place, b: _Place) -> bool:
    """Whether two parameters have a byte in common; columns of one matrix have none, though their ranges overlap."""
    start, end = min(a.first, b.first), max(a.end, b.end)
    taken = torch.zeros(end - start, dtype=torch.bool)
    _bytes_of(a, taken, start).fill_(True)
    return bool(_bytes_of(b, taken, start).any())


def _bytes_of(place: _Place, taken: Tensor, start: int) -> Tensor:
    """The part of `taken`, which stands for the bytes from `start` on, that a parameter lies in."""
    x, size = place.parameter, place.parameter.element_size()
    return taken.as_strided([*x.shape, size], [*(stride * size for stride in x.stride()), 1], place.first - start)
