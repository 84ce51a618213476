"""Writes by index into tensors whose elements share memory are exact, as they are op by op."""

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.fx_passes import reinplace

from dpgraph import CompileOptions
from dpgraph.passes.copy_bases_of_writes import WRITES
from tests.programs.exact import check_exact
from tests.programs.several import Several

B, T, D = 5, 4, 6


def ids():
    """[2, 0], made in the graph."""
    return 2 - 2 * torch.arange(2)


def wide():
    return torch.zeros(T, D, dtype=torch.float64)


def spread(w, x):
    """[B, T, D], in which all rows of a sample are one place of memory."""
    return (x * w).unsqueeze(1).expand(-1, T, -1)


def rows(x):
    return torch.arange(x.shape[0])


def write_zeros(w, x, i):
    h = spread(w, x) + wide()  # Inductor drops the sum
    h[rows(x), i] = 0
    return h.sum(1)


def write_into_repeated(w, x, i):
    h = (x * w).unsqueeze(1).repeat(1, T, 1)
    h[rows(x), i] = 2.0
    return h


def write_into_interleaved(w, x, i):
    h = (x * w).unsqueeze(1).repeat_interleave(T, 1)
    h[rows(x), i] = x
    return h


def write_after_division(w, x, i):
    h = spread(w, x) / torch.ones_like(wide())
    h[:, ids()] = 0.5
    return h


def write_twice(w, x, i):
    h = spread(w, x).index_fill(1, ids(), 0.5)
    return h.index_fill(2, ids(), 0.25) * spread(w, x)


def write_half(w, x, i):
    h = spread(w, x) + wide()
    h[:, 1] = x.sin()
    h[:, 2:, ::2] = 1.0
    return h


def write_where_masked(w, x, i):
    h = spread(w, x) * torch.ones_like(wide())
    h[:, torch.tensor([True, False, True, False])] = 1.5
    return h


WRITTEN = {
    "write_zeros": write_zeros,
    "write_into_repeated": write_into_repeated,
    "write_into_interleaved": write_into_interleaved,
    "write_after_division": write_after_division,
    "write_twice": write_twice,
    "write_half": write_half,
    "write_where_masked": write_where_masked,
    "index_put": lambda w, x, i: spread(w, x).index_put((rows(x), i), x),
    "index_put_added": lambda w, x, i: spread(w, x).index_put((rows(x), i), x, accumulate=True),
    "index_fill": lambda w, x, i: spread(w, x).index_fill(1, ids(), 0.5).sum(1),
    "index_copy": lambda w, x, i: spread(w, x).index_copy(1, ids(), x.unsqueeze(1).expand(-1, 2, -1)).cos(),
    "index_add": lambda w, x, i: spread(w, x).index_add(1, ids(), x.unsqueeze(1).expand(-1, 2, -1)).cos(),
    "index_of_sample": lambda w, x, i: (spread(w, x) - wide()).index_put((rows(x), i), x.new_zeros(())).exp(),
    "scatter": lambda w, x, i: spread(w, x).scatter(1, i[:, None, None].expand(-1, 1, D), x.unsqueeze(1)),
    "scatter_add": lambda w, x, i: spread(w, x).scatter_add(1, i[:, None, None].expand(-1, 1, D), x.unsqueeze(1)),
    "scatter_number": lambda w, x, i: spread(w, x).scatter(1, i[:, None, None].expand(-1, 1, D), 0.5),
    "select_scatter": lambda w, x, i: torch.select_scatter(spread(w, x), x, 1, 2).sin(),
    "slice_scatter": lambda w, x, i: torch.slice_scatter(spread(w, x), x.unsqueeze(1), 1, 1, 2).sin(),
    "slice_scatter_all": lambda w, x, i: torch.slice_scatter(wide() + x[:, None], spread(w, x), 1).index_fill(
        1, ids(), 2
    ),
    "diagonal_scatter": lambda w, x, i: torch.diagonal_scatter(spread(w, x), x[:, :T], 0, 1, 2).sin(),
    "windows": lambda w, x, i: (x * w).unfold(1, 3, 1).index_fill(2, ids(), 0.5),
    "windows_copied": lambda w, x, i: (x * w).unfold(1, 2, 1).index_copy(2, ids()[1:], x[:, 1:].unsqueeze(2)),
    "windows_of_images": lambda w, x, i: F.unfold((x * w).reshape(-1, 1, 2, 3), 2).index_fill(1, ids(), 0.5),
    "written_with_weight": lambda w, x, i: spread(w, x).index_copy(1, ids(), spread(w, x.cos())[:, :2]),
}

# What is read by index is written by index in the backward: into a table for each sample.
READ = {
    "one_axis": lambda w, x, i: w.sum((1, 2))[i].unsqueeze(1) * x,
    "three_axes": lambda w, x, i: w[i, i % 2, i % 3].unsqueeze(1) * x,
    "two_axes": lambda w, x, i: w[i, i % 2] * x[:, :3],
    "last_axes": lambda w, x, i: w[:, i % 2, i % 3].t() * x[:, :4],
    "second_axis": lambda w, x, i: w.flatten(1)[:, i].t() * x[:, :4],
    "flat": lambda w, x, i: w.flatten()[i].unsqueeze(1) * x,
    "each_position": lambda w, x, i: w.flatten()[x.detach().abs().long() % 24] * x,
    "relative_positions": lambda w, x, i: w[:, ids() // 2, ids()].sum(1) * x[:, :4],
    "relative_positions_of_one": lambda w, x, i: w.flatten()[torch.tensor([[0, 1], [1, 0]])].sum(0) * x[:, :2],
}


def inputs():
    return torch.randn(B, D, dtype=torch.float64), torch.tensor([3, 0, 1, 1, 2])


@pytest.mark.parametrize("name", WRITTEN)
def test_a_write_is_exact(name):
    check_exact(Several({name: WRITTEN[name]}, (D,)), *inputs())


@pytest.mark.parametrize("name", READ)
def test_the_gradient_of_a_lookup_is_exact(name):
    check_exact(Several({name: READ[name]}, (4, 2, 3)), *inputs())


@pytest.mark.inductor
@pytest.mark.parametrize(("programs", "shape"), [(WRITTEN, (D,)), (READ, (4, 2, 3))], ids=["writes", "lookups"])
def test_through_inductor(programs, shape):
    check_exact(Several(programs, shape), *inputs(), options=CompileOptions(backend="inductor"))


def test_what_is_written_into_is_new():
    module = check_exact(Several({"write_zeros": write_zeros, "index_add": WRITTEN["index_add"]}, (D,)), *inputs())
    nodes = [n for n in module.graphs["copy_bases_of_writes"].nodes if getattr(n.target, "overloadpacket", 0) in WRITES]
    bases = [n.args[0].target for n in nodes]
    assert bases.count(torch.ops.dpgraph.in_own_memory.default) >= 2
    assert torch.ops.aten.add.Tensor not in bases
    assert torch.ops.aten.expand.default not in bases


def test_whatever_inductor_may_write_in_place_is_known():
    packets = {op.overloadpacket for op in (*reinplace.inplaceable_ops, *reinplace._SCATTER_OP_TO_VIEW) if is_aten(op)}
    assert packets - WRITES == {torch.ops.aten.as_strided_scatter}


def is_aten(op):
    return isinstance(op, torch._ops.OpOverload) and op.namespace == "aten"
