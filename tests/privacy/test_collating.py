"""A `DataLoader` over Poisson batches, empty ones too, of records of every kind."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

import dpgraph
from dpgraph.errors import ArgumentError
from dpgraph.privacy import PoissonSampler, collate_any_size

Point = namedtuple("Point", ["x", "y"])


@dataclass(frozen=True)
class Batch:
    x: Tensor
    names: list[str]
    table: Tensor


TABLE = torch.eye(3)


def collate_dataclass(records: list[tuple[Tensor, str]]) -> Batch:
    return Batch(torch.stack([x for x, _ in records]), [name for _, name in records], TABLE)


def positions_first(records: list[Tensor]) -> UserDict:
    """Positions on axis 0, the samples on axis 1; and all records end to end, with the places where they end."""
    ends = torch.tensor([0, *(len(x) for x in records)]).cumsum(0)
    return UserDict(x=torch.stack(records, 1), flat=torch.cat(records), ends=ends)


def seldom(num_records: int, steps: int = 12) -> PoissonSampler:
    return PoissonSampler(num_records, 0.25, steps, generator=torch.Generator().manual_seed(0))


RECORDS = {
    "tensor": [torch.randn(3) for _ in range(5)],
    "tuple": [(torch.randn(3), i, 0.5 * i, f"record {i}") for i in range(5)],
    "dict": [{"x": torch.randn(3, 2), "inner": [torch.zeros(2), i], "name": b"n"} for i in range(5)],
    "named tuple": [Point(torch.randn(3), i) for i in range(5)],
    "numpy": [(np.ones(3, dtype=np.float32), np.int16(i)) for i in range(5)],
}


def structure(x: object) -> object:
    """Types, and sizes of all axes but the first."""
    if isinstance(x, Tensor):
        return x.dtype, x.shape[1:]
    if isinstance(x, dict):
        return {name: structure(part) for name, part in x.items()}
    if isinstance(x, (list, tuple)):
        if x and isinstance(x[0], (str, bytes)):
            return type(x), []
        return type(x), [structure(part) for part in x]
    return type(x)


def leading(x: object) -> set[int]:
    if isinstance(x, Tensor):
        return {len(x)}
    parts = x.values() if isinstance(x, dict) else x
    if not isinstance(x, dict) and (not x or isinstance(x[0], (str, bytes))):
        return {len(x)}
    return set().union(*(leading(part) for part in parts))


@pytest.mark.parametrize("kind", RECORDS)
def test_every_batch_of_a_loader_has_one_structure(kind):
    records = RECORDS[kind]
    loader = DataLoader(records, batch_sampler=seldom(5), collate_fn=collate_any_size(records[0]))
    batches = list(loader)
    sizes = [len(batch) for batch in seldom(5)]
    assert 0 in sizes
    assert max(sizes) > 1
    for batch, size in zip(batches, sizes, strict=True):
        assert leading(batch) == {size}
        assert structure(batch) == structure(default_collate(records[:2]))


def test_workers():
    records = RECORDS["dict"]
    collate = collate_any_size(records[0])
    plain, spread = (
        list(DataLoader(records, batch_sampler=seldom(5), collate_fn=collate, num_workers=n)) for n in (0, 1)
    )
    for a, b in zip(plain, spread, strict=True):
        torch.testing.assert_close(a["x"], b["x"])
    assert 0 in [len(a["x"]) for a in spread]


def test_a_subset_fetches_whole_batches():
    records = Subset(TensorDataset(torch.arange(10.0)), [1, 3, 5, 7, 9])
    loader = DataLoader(records, batch_sampler=seldom(5), collate_fn=collate_any_size(records[0]))
    assert {len(x) for (x,) in loader} >= {0, 1}


def test_dataclasses_and_what_all_samples_share():
    empty = collate_any_size((torch.ones(2), "name"), collate_dataclass)([])
    assert isinstance(empty, Batch)
    assert empty.x.shape == (0, 2)
    assert empty.names == []
    torch.testing.assert_close(empty.table, TABLE)


def test_axes_are_told_by_how_they_grow():
    empty = collate_any_size(torch.ones(1, 2), positions_first)([])
    assert type(empty) is UserDict
    assert empty["x"].shape == (1, 0, 2)
    assert empty["flat"].shape == (0, 2)
    assert empty["ends"].tolist() == [0]


def test_no_value_of_the_example_is_kept():
    collate = collate_any_size((torch.full((3,), 7.0), 7, "seven"))
    x, y, names = collate.empty
    assert x.untyped_storage().nbytes() == y.untyped_storage().nbytes() == 0
    assert list(names) == []


def test_batches_do_not_share_what_is_empty():
    collate = collate_any_size({"x": torch.ones(2)})
    collate([])["more"] = 1
    assert list(collate([])) == ["x"]


def test_a_part_that_cannot_be_told_is_named():
    with pytest.raises(ArgumentError, match=r"the batch\['about'\].* is a SimpleNamespace"):
        collate_any_size(1, lambda records: {"about": SimpleNamespace(n=len(records))})
    with pytest.raises(ArgumentError, match=r"the batch\['n'\] is a int"):
        collate_any_size(1, lambda records: {"n": len(records)})
    assert collate_any_size(1, lambda records: {"n": 3})([]) == {"n": 3}


def test_a_model_trains_on_what_the_loader_gives():
    torch.manual_seed(0)
    records = TensorDataset(torch.randn(5, 3), torch.tensor([1, 2, 1, 2, 2]))
    model = nn.Linear(3, 2)
    private = dpgraph.dp_compile(model, "full", loss_fn=_loss, options=dpgraph.CompileOptions(backend="eager"))
    sizes = []
    for x, y in DataLoader(records, batch_sampler=seldom(5), collate_fn=collate_any_size(records[0])):
        model.zero_grad()
        private(x, targets=(y,)).sum().backward()
        assert bool(model.weight.grad.any()) == (len(x) > 0)
        sizes.append(len(x))
    assert 0 in sizes


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels - 1, reduction="none")
