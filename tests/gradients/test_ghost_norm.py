"""The ghost norm is the plain sum over pairs of positions: as an operator, or as products in the graph."""

import pytest
import torch
from torch import nn

from dpgraph import CompileOptions
from dpgraph.gradients import ghost_norm, outer
from dpgraph.gradients.certified import Certified
from dpgraph.gradients.ghost_norm import BLOCK, KERNEL_FROM, LONG_FROM, blocked_norm_sq, ghost_norm_sq, kernel_serves
from dpgraph.gradients.gram import gram_dot, gram_norm_sq, total_size
from dpgraph.gradients.outer import Outer
from dpgraph.plan_forms import plan_materialised
from dpgraph.sites.gradient import PerSampleGradient
from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, symbolic_fake, trace
from tests.gradients.certify import assert_certified
from tests.gradients.largest import LargestResult
from tests.programs.exact import check_exact

OPERATOR = torch.ops.dpgraph.ghost_norm


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(ghost_norm, "BLOCK", 8)


@pytest.fixture
def with_kernel(monkeypatch):
    """As on a machine that has one."""
    monkeypatch.setattr(ghost_norm, "HAS_KERNEL", True)


@pytest.mark.parametrize("num_samples", [0, 1, 3, 40])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 37])
def test_blocks_of_positions_are_the_plain_sum(length, num_samples, small_blocks, uncompiled):
    u = torch.randn(num_samples, length, 3, dtype=torch.float64)
    v = torch.randn(length, num_samples, 4, dtype=torch.float64).transpose(0, 1)
    assert_certified(OPERATOR(u, v), gram_dot(u, u, v, v), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float64(dtype, small_blocks, uncompiled):
    ones = torch.full((2, 20, 4), 30.0, dtype=dtype)
    assert_certified(OPERATOR(ones, ones), torch.full((2,), (20 * 900.0) ** 2 * 16))


def test_what_is_not_finite_stays_in_its_sample(small_blocks, uncompiled):
    u, v = torch.randn(3, 20, 3), torch.randn(3, 20, 4)
    u[1, 3, 0] = float("nan")
    found = OPERATOR(u, v)
    assert found[0, 1].isnan()
    assert_certified(found[:, ::2], gram_dot(u, u, v, v)[::2])


def test_no_square_of_a_long_sample_is_held():
    u = torch.randn(2, 3 * BLOCK, 2)
    with LargestResult(torch.ops.aten.bmm.default) as largest:
        blocked_norm_sq(u, u)
    assert largest.numel == BLOCK**2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 5)])
def test_it_is_a_proper_operator(shape, dtype):
    torch.library.opcheck(OPERATOR, (torch.randn(*shape, 3).to(dtype), torch.randn(*shape, 4).to(dtype)))


@pytest.mark.inductor
def test_it_goes_through_inductor_for_any_number_of_samples():
    compiled = torch.compile(lambda u, v: OPERATOR(u * 2, v) + 1, fullgraph=True, dynamic=True)
    for num_samples in (3, 5):
        u, v = torch.randn(num_samples, 6, 3), torch.randn(num_samples, 6, 4)
        torch.testing.assert_close(compiled(u, v)[0], 4 * gram_dot(u, u, v, v) + 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "length", "dtype", "served"),
    [
        ("cuda", LONG_FROM, torch.float32, True),
        ("cuda", LONG_FROM, torch.bfloat16, True),
        ("cuda", KERNEL_FROM, torch.float32, True),
        ("cuda", KERNEL_FROM - 1, torch.float32, False),
        ("cuda", LONG_FROM, torch.float64, False),
        ("cpu", LONG_FROM, torch.float32, True),
        ("cpu", 2, torch.bfloat16, True),
        ("cpu", 1, torch.float32, False),
        ("cpu", LONG_FROM, torch.float16, False),
    ],
)
def test_a_kernel_is_for_nearly_all_samples(device, length, dtype, served, with_kernel):
    with FakeTensorMode():
        assert kernel_serves(length, torch.empty(1, device=device, dtype=dtype)) == served


def test_there_is_no_kernel_without_triton_or_a_compiler(monkeypatch, uncompiled):
    monkeypatch.setattr(ghost_norm, "HAS_KERNEL", False)
    with FakeTensorMode():
        assert not kernel_serves(LONG_FROM, torch.empty(1, device="cuda"))
        assert not kernel_serves(LONG_FROM, torch.empty(1))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("symbolic", [0, 1], ids=["samples", "positions"])
def test_of_long_samples_a_graph_holds_one_node_and_no_guard(symbolic, device, with_kernel):
    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment)
    of_u = symbolic_fake(mode, torch.empty(2, LONG_FROM, 3, device="meta"), symbolic)
    with mode:
        u, v = torch.empty_like(of_u, device=device), of_u.new_empty(*of_u.shape[:2], 4, device=device)
        guards = list(environment.guards)
        traced = trace(lambda u, v: Outer(u, v).norm_sq().value, [u, v])
    calls = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert OPERATOR.default in calls
    assert torch.ops.aten.bmm.default not in calls
    assert environment.guards == guards


@pytest.mark.parametrize("by_kernel", [True, False])
def test_the_plan_knows_that_the_kernel_writes_no_gram_matrix(by_kernel, monkeypatch):
    monkeypatch.setattr(ghost_norm, "HAS_KERNEL", by_kernel)
    with FakeTensorMode():
        form = Outer(torch.empty(8, 1024, 2500, device="cuda"), torch.empty(8, 1024, 2500, device="cuda"))
    chosen = plan_materialised({"weight": PerSampleGradient((form,), ())}, CompileOptions())
    assert chosen == {"weight": (not by_kernel,)}


class Layers(nn.Module):
    """Products over positions, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.convolution = nn.Conv1d(2, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, T - 2] of x [B, T, 3]."""
        return self.convolution(self.layers(x).mT)


def in_operator(u: torch.Tensor, v: torch.Tensor) -> tuple[Certified, torch.Tensor]:
    value, error, size = OPERATOR(u, v).unbind(0)
    return Certified(value, error), size


def in_graph(u: torch.Tensor, v: torch.Tensor) -> tuple[Certified, torch.Tensor]:
    return Certified(gram_norm_sq(u, v)), total_size(u, v)


@pytest.mark.parametrize("norm", [in_operator, in_graph], ids=["operator", "products in the graph"])
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_training_is_exact(backend, norm, monkeypatch):
    calls = []
    monkeypatch.setattr(outer, "ghost_norm_sq", lambda u, v: calls.append(1) or norm(u, v))
    options = CompileOptions(backend=backend, norm_strategy="ghost")
    check_exact(Layers().double(), torch.randn(3, 7, 3, dtype=torch.float64), options=options)
    assert calls


def operators_of_norm(length: int) -> set:
    """Operators of the graph of a ghost norm, of samples of that length."""

    def norm_sq(u, v):
        return ghost_norm_sq(u, v)[0].value

    traced = trace(norm_sq, [torch.randn(3, length, 4), torch.randn(3, length, 2)])
    return {node.target for node in traced.graph.nodes if node.op == "call_function"}


def test_of_short_samples_the_graph_holds_the_products_where_there_is_no_kernel(uncompiled):
    found = operators_of_norm(LONG_FROM - 1)
    assert torch.ops.aten.bmm.default in found
    assert OPERATOR.default not in found


def test_of_short_samples_the_graph_holds_the_kernel_where_there_is_one():
    found = operators_of_norm(2)
    assert OPERATOR.default in found
    assert torch.ops.aten.bmm.default not in found


def test_of_one_position_the_graph_holds_the_closed_form():
    u, v = torch.randn(3, 1, 4, dtype=torch.float64), torch.randn(3, 1, 2, dtype=torch.float64)
    assert_certified(ghost_norm_sq(u, v)[0], (u.mT @ v).square().sum((1, 2)), rtol=1e-12)
    assert not {OPERATOR.default, torch.ops.aten.bmm.default} & operators_of_norm(1)


def test_of_one_position_half_precision_is_added_up_in_float64():
    ones = torch.full((2, 1, 400), 30.0, dtype=torch.float16)
    assert_certified(ghost_norm_sq(ones, ones)[0], torch.full((2,), (400 * 900.0) ** 2, dtype=torch.float64))
