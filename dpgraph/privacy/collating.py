"""Collating for a `DataLoader` whose batches may be empty, as those of Poisson sampling are."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from dpgraph.errors import ArgumentError

__all__ = ["collate_any_size"]


def collate_any_size(
    example: Any, collate_fn: Callable[[list[Any]], Any] = default_collate
) -> Callable[[list[Any]], Any]:
    """A collate function that gives an empty list of records a batch too: of the usual structure, with no rows.

    `DataLoader(records, batch_sampler=PoissonSampler(...))` fails at the first empty batch, since torch's own collating
    reads the structure of a batch off its first record. Leaving such batches out is no way on: the step has to take
    place and add its noise, or the accountant counts what did not happen.

    What becomes of an axis as records are added is seen on `collate_fn([example])` and `collate_fn([example] * 2)`,
    which are made here, once. Nothing is taken from the example but that: no value of it is in any batch. Its sizes
    are, such as its length; they decide no gradient, since a batch without rows has none.

    Args:
        example: a record as the data set gives it; `records[0]` will do.
        collate_fn: makes a batch of a list of one record or more.

    Returns:
        A function for `DataLoader(collate_fn=...)`; it can be pickled, if `collate_fn` can, for worker processes.

    Raises:
        ArgumentError: a batch has a part of which it cannot be told what there is of it without records.

    >>> from torch.utils.data import DataLoader
    >>> from dpgraph.privacy import PoissonSampler
    >>> records = [(torch.zeros(3), 1), (torch.ones(3), 0)]
    >>> never = PoissonSampler(len(records), 1e-9, steps=1)
    >>> for x, y in DataLoader(records, batch_sampler=never, collate_fn=collate_any_size(records[0])):
    ...     print(x.shape, y.shape, y.dtype)
    torch.Size([0, 3]) torch.Size([0]) torch.int64
    """
    empty = _without_rows(collate_fn([example]), collate_fn([example, example]), "the batch")
    return _CollateAnySize(collate_fn, empty)


@dataclasses.dataclass(frozen=True)
class _CollateAnySize:
    collate_fn: Callable[[list[Any]], Any]
    empty: Any

    def __call__(self, records: list[Any]) -> Any:
        return self.collate_fn(records) if len(records) else copy.deepcopy(self.empty)


def _without_rows(one: Any, two: Any, name: str) -> Any:
    """A part of the batch of no records, from those of one record and of two."""
    match one:
        case Tensor():
            return _cut(one, one.shape, two.shape)
        case str() | bytes() | None:
            return one
        case Mapping():
            return _filled(one, {key: _without_rows(one[key], two[key], f"{name}[{key!r}]") for key in one})
        case tuple() if hasattr(one, "_fields"):
            fields = zip(one, two, one._fields, strict=True)
            return type(one)(*(_without_rows(a, b, f"{name}.{field}") for a, b, field in fields))
        case Sequence():
            kept = _size_of_none(len(one), len(two))
            parts = [_without_rows(one[i], two[i], f"{name}[{i}]") for i in range(kept)]
            return tuple(parts) if isinstance(one, tuple) else parts
        case _ if hasattr(one, "shape") and hasattr(one, "__array__"):
            return one[tuple(slice(_size_of_none(a, b)) for a, b in zip(one.shape, two.shape, strict=True))]
        case _ if dataclasses.is_dataclass(one) and not isinstance(one, type):
            made = copy.copy(one)
            for x in dataclasses.fields(one):
                part = _without_rows(getattr(one, x.name), getattr(two, x.name), f"{name}.{x.name}")
                object.__setattr__(made, x.name, part)
            return made
        case _ if one == two:
            return one
    raise ArgumentError(
        f"{name} is a {type(one).__name__}, and differs between a batch of one record and one of two",
        why="an empty batch must take its step too, and what stands there in it cannot be told",
        fix="collate into tensors, lists, mappings, named tuples or dataclasses of them",
    )


def _filled(like: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """A mapping of the same type, where that can be copied and changed."""
    made = copy.copy(like)
    try:
        made.update(parts)  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return parts
    return made


def _cut(x: Tensor, one: torch.Size, two: torch.Size) -> Tensor:
    """`x` as it is for no records; its memory is its own, so that none of the example's is kept."""
    sizes = [_size_of_none(a, b) for a, b in zip(one, two, strict=True)]
    return x[tuple(map(slice, sizes))].clone()


def _size_of_none(one: int, two: int) -> int:
    """A size that grows by the same amount with each record, for no records."""
    return max(0, 2 * one - two)
