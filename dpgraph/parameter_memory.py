"""Hold that no two parameters lie in the same memory; parts of one buffer that do not overlap are parameters apart.

cuDNN wants the weights of an LSTM or a GRU in one piece, Megatron and optimizers that work on flat memory those of a
whole model: each parameter is then a view of one buffer.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dpgraph.errors import ArgumentError
from dpgraph.torch_compat import FakeTensor

__all__ = ["check_memory", "overlapping"]

Name = TypeVar("Name")


def check_memory(model: nn.Module, trained: Collection[str]) -> None:
    """Pass if no element of a trained parameter is one of another parameter too.

    Raises:
        ArgumentError: two parameters share memory, and an update of the one would change the other.
    """
    chosen = set(trained)
    for a, b in overlapping(model.named_parameters()):
        if chosen & {a, b}:
            raise ArgumentError(
                f"parameters {a!r} and {b!r} share memory but are two parameters",
                why="an update of the one changes the other, and its gradient leaves the clipped norm incomplete",
                fix="tie them by assigning the same Parameter object to both, or clone one of them",
            )


def overlapping(tensors: Iterable[tuple[Name, Tensor]]) -> Iterator[tuple[Name, Name]]:
    """Names of the pairs of tensors that have a byte of memory in common, whatever storages they are views of."""
    real = ((name, x) for name, x in tensors if x.numel() and not x.is_meta and not isinstance(x, FakeTensor))
    places = sorted((_Place(name, x) for name, x in real), key=lambda place: place.first)
    for i, a in enumerate(places):
        for b in (places[j] for j in range(i + 1, len(places))):
            if b.first >= a.end:
                break
            if a.tensor.device == b.tensor.device and _overlap(a, b):
                yield a.name, b.name


class _Place(Generic[Name]):
    """A tensor with the addresses that it lies within."""

    def __init__(self, name: Name, tensor: Tensor) -> None:
        self.name = name
        self.tensor = tensor
        self.first = tensor.data_ptr()
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        self.end = self.first + (last + 1) * tensor.element_size()


def _overlap(a: _Place[Any], b: _Place[Any]) -> bool:
    """Whether two tensors have a byte in common; columns of one matrix have none, though their ranges overlap."""
    start, end = min(a.first, b.first), max(a.end, b.end)
    taken = torch.zeros(end - start, dtype=torch.bool)
    _bytes_of(a, taken, start).fill_(True)
    return bool(_bytes_of(b, taken, start).any())


def _bytes_of(place: _Place[Any], taken: Tensor, start: int) -> Tensor:
    """The part of `taken`, which stands for the bytes from `start` on, that a tensor lies in."""
    x, size = place.tensor, place.tensor.element_size()
    return taken.as_strided([*x.shape, size], [*(stride * size for stride in x.stride()), 1], place.first - start)
