"""The kernel for CPUs is the sum over all pairs of positions, of any sizes and strides, and each sample's own."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpgraph.gradients import native
from dpgraph.gradients.gram import gram_dot, total_size
from dpgraph.gradients.native import native_norm_sq, native_serves
from dpgraph.torch_compat import compile_native
from tests.gradients.certify import assert_certified

NAN = float("nan")
# On both sides of a vector, a tile, a block of positions, and of the features that are read at a time.
LENGTHS = [0, 1, 2, 3, 4, 5, 8, 31, 32, 33, 63, 65, 97, 130]
FEATURES = [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 511, 512, 513, 1030]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def reference(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The sum in float64."""
    return gram_dot(u.double(), u.double(), v.double(), v.double())


def check(u: torch.Tensor, v: torch.Tensor) -> None:
    found = native_norm_sq(u, v)
    assert_certified(found, reference(u, v), rtol=1e-12 if u.dtype == torch.float64 else 1e-6)
    size = total_size(u, v)
    assert (found[2] >= size * (1 - 1e-12)).all()
    torch.testing.assert_close(found[2], size, rtol=1e-4, atol=1e-12)


@given(
    num_samples=st.integers(0, 3),
    length=st.sampled_from(LENGTHS),
    rows=st.sampled_from(FEATURES),
    columns=st.sampled_from(FEATURES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_it_is_the_plain_sum(num_samples, length, rows, columns, dtype, seed):
    torch.manual_seed(seed)
    check(torch.randn(num_samples, length, rows).to(dtype), torch.randn(num_samples, length, columns).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_positions_and_samples_may_lie_anywhere(dtype):
    parts = torch.randn(3, 40, 60).to(dtype).split([20, 20, 20], dim=2)
    across = torch.randn(40, 3, 9).to(dtype).transpose(0, 1)
    apart = torch.randn(3, 9, 40).to(dtype).mT
    same = torch.randn(1, 1, 9).to(dtype).expand(3, 40, 9)
    for u, v in [(parts[1], across), (apart, parts[2]), (same, apart), (across[:, 3:], parts[0][:, :37])]:
        check(u, v)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_reads_nothing_around_its_operands(dtype):
    around = torch.full((4, 50, 70), NAN, dtype=dtype)
    inside = around[1:3, 7:44, 5:42]
    inside.copy_(torch.randn(inside.shape))
    check(inside, inside)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("position", [0, 36])
def test_what_is_not_finite_stays_in_its_sample(position, value):
    u, v = torch.randn(3, 37, 5), torch.randn(3, 37, 20)
    u[1, position, 2] = value
    found = native_norm_sq(u, v)
    assert not found[:, 1].isfinite().any()
    assert_certified(found[:, ::2], gram_dot(u, u, v, v)[::2])


def test_the_bits_do_not_depend_on_the_number_of_threads():
    u, v, threads = torch.randn(3, 200, 30), torch.randn(3, 200, 50), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(native_norm_sq(u, v))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_operands_of_other_lengths_are_a_fault():
    with pytest.raises(AssertionError, match="beyond the end"):
        native_norm_sq(torch.randn(2, 5, 3), torch.randn(2, 4, 3))


def test_it_serves_what_it_is_written_for():
    of = {dtype: torch.empty(0, dtype=dtype) for dtype in (*DTYPES, torch.float16)}
    assert all(native_serves(of[dtype], of[dtype]) for dtype in DTYPES)
    assert not native_serves(of[torch.float16])
    assert not native_serves(of[torch.float32], of[torch.float64])


def test_what_does_not_compile_is_said_and_not_used(monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        library = compile_native("this is not C++")
    assert library is None
    assert "does not compile" in caplog.text
    monkeypatch.setattr(native, "_library", lambda: library)
    assert not native_serves(torch.empty(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [2, 5, 16, 33, 70])
def test_it_bounds_what_cancels(dtype, length):
    """Nearly equal rows, of sizes that fall off, with opposite gradients: errors are bounded, and not by much more."""
    torch.manual_seed(length)
    sizes = 10.0 ** -(torch.arange(length) % 5)
    sign = (1.0 - 2 * (torch.arange(length) % 2))[:, None]
    for base in (1.0, 1e2, 1e4):
        u = ((base * torch.randn(2, 1, 60) + torch.randn(2, length, 60)) * sizes[:, None]).to(dtype)
        v = ((torch.randn(2, 1, 20) + torch.randn(2, length, 20) / base) * sign).to(dtype)
        true = torch.tensor(exact_norm_sq(u, v), dtype=torch.float64)
        value, error, _ = native_norm_sq(u, v)
        assert ((value - true).abs() <= error).all()
        reach = (u.double().norm(dim=2) * v.double().norm(dim=2)).sum(1).square()
        eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
        assert (error <= (200 + length**2) * eps * reach).all()


def exact_norm_sq(u: torch.Tensor, v: torch.Tensor) -> list[float]:
    """|sum_t u_t v_t^T|^2, with more digits than float64 has."""
    u, v = (x.double().numpy().astype(np.longdouble) for x in (u, v))
    return [float(np.square(np.einsum("tp,td->pd", of_u, of_v)).sum()) for of_u, of_v in zip(u, v, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_zeros_nothing_is_uncertain(dtype):
    u, v = torch.randn(2, 9, 5).to(dtype), torch.randn(2, 9, 7).to(dtype)
    u[0] *= -0.0
    value, error, _ = native_norm_sq(u, v)
    assert value[0] == error[0] == 0
    assert value[1] > 0


def test_squares_that_underflow_are_bounded():
    u, v = 1e-25 * torch.randn(1, 4, 5), 1e18 * torch.randn(1, 4, 7)
    value, error, _ = native_norm_sq(u, v)
    assert torch.tensor(exact_norm_sq(u, v), dtype=torch.float64) <= value + error
