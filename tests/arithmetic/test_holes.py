"""Samples for which computed norms, factors and sums were wrong, and what becomes of them now."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import CompileOptions, dp_compile
from dpgraph.sums import Sums

BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.inductor)]


class Product(nn.Module):
    """losses [B] of x [B, T, columns] and the gradient c [B, T, rows] of a product's results."""

    def __init__(self, rows: int = 4, columns: int = 12) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The sum of c times the products."""
        return (F.linear(x, self.weight) * c).sum((1, 2))


def added(module, x: Tensor, c: Tensor) -> float:
    """The norm of what a batch adds."""
    module.zero_grad()
    module(x, c).sum().backward()
    return module.weight.grad.double().norm().item()


def private(dtype: torch.dtype = torch.float32, backend: str = "eager", **settings):
    options = CompileOptions(backend=backend, norm_strategy=settings.pop("norm_strategy", "ghost"))
    shape = settings.pop("shape", (4, 12))
    return dp_compile(Product(*shape).to(dtype), "full", options=options, **settings)


def opposite(size: float, noise: float = 0.1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """One sample of 16 nearly equal rows x of that size, with gradients that are opposite by turns."""
    torch.manual_seed(0)
    x = size * torch.randn(1, 1, 12, dtype=torch.float64) + noise * torch.randn(1, 16, 12, dtype=torch.float64)
    c = torch.randn(1, 1, 4, dtype=torch.float64) * (1 - 2 * (torch.arange(16.0) % 2))[None, :, None]
    return x.to(dtype), c.to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancellation(backend):
    """A Gram matrix's norm came out as 0, and the sample was added with up to 1.3e6 R."""
    module = private(backend=backend)
    for size in (1e2, 1e4, 1e6, 1e8):
        norm = added(module, *opposite(size))
        assert norm <= module.sensitivity
        assert norm > 0 or size > 1e6, "rows of less than 1e6 differ in float32"
        assert module.num_cancelled == 1
        assert module.norm_errors.item() > 1e-3
    assert 0.9 < added(module, *opposite(1.0, noise=1.0)) <= module.sensitivity
    assert module.num_cancelled == 0


@pytest.mark.parametrize("size", [1e6, 1e8, 1e12])
def test_cancellation_in_double_precision(size):
    module = private(torch.float64)
    assert added(module, *opposite(size, dtype=torch.float64)) <= module.sensitivity


def test_what_is_materialised_is_clipped_by_what_is_added():
    module = private(norm_strategy="materialise")
    for size in (1e2, 1e4, 1e6):
        assert 0.9 < added(module, *opposite(size)) <= module.sensitivity
        assert module.num_cancelled == 0


@pytest.mark.parametrize("strategy", ["ghost", "materialise"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_overflow_is_counted_and_adds_nothing(backend, strategy):
    """A partial sum of -inf was clamped to 0, and the sample was added with up to 6.8e20 R."""
    module = private(backend=backend, norm_strategy=strategy, clipping="abadi")
    for size in (1e18, 1e25, 1e30):
        x, c = opposite(size)
        norm = added(module, torch.cat([x, torch.ones_like(x)]), torch.cat([1e10 * c, torch.ones_like(c)]))
        assert norm <= 2 * module.sensitivity
        assert module.num_nonfinite + module.num_cancelled >= (strategy == "ghost")
        assert norm >= 0.9, "the other sample is added"


def test_squares_that_underflow():
    """AUTO-V compared a norm, whose square underflows, with the smallest number, and added 99 R."""
    for strategy in ("ghost", "materialise"):
        module = private(norm_strategy=strategy, clipping="auto-v")
        for tiny in (1e-15, 1e-20, 1e-23, 1e-30, 1e-38, 1e-44):
            x, c = torch.randn(1, 16, 12), torch.randn(1, 16, 4)
            assert added(module, tiny * x, c) <= module.sensitivity
            assert added(module, 1e-20 * x, 1e20 * tiny * c) <= module.sensitivity


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_do_not_go_through_half_precision(dtype, backend):
    """A sample without a gradient has the factor 100 R; times x = 1,000 that is infinite in float16."""
    module = private(dtype, backend, max_grad_norm=10.0, shape=(12, 4))
    x, c = torch.full((2, 16, 4), 1000.0, dtype=dtype), torch.zeros(2, 16, 12, dtype=dtype)
    c[1] = 1e-3
    assert 9 < added(module, x, c) <= module.sensitivity
    assert module.num_nonfinite == module.num_cancelled == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_do_not_go_through_half_precision(backend):
    """8,192 samples in 64 parts: rounded to bfloat16, a sum of samples that are alike moved by 64 R with one more."""
    sums = Sums(max_samples=8192, max_parts=64)
    module = private(torch.bfloat16, backend, max_samples=sums.max_samples, max_parts=sums.max_parts)
    x, c = torch.ones(128, 16, 12, dtype=torch.bfloat16), torch.ones(128, 16, 4, dtype=torch.bfloat16)

    def total(missing: int) -> Tensor:
        module.zero_grad()
        for part in range(sums.max_parts):
            kept = slice(missing if part == 0 else 0, None)
            module(x[kept], c[kept]).sum().backward()
        return module.weight.grad.double().clone()

    whole = total(missing=0)
    assert module.weight.grad.dtype == torch.float32
    for missing in (1, 2, 5):
        moved = (whole - total(missing)).norm().item()
        assert 0.9 * missing < moved <= missing * module.sensitivity


def test_the_sensitivity_covers_what_is_said_to_be_added_up():
    few, many = private(max_samples=1, max_parts=1), private(max_samples=8192, max_parts=64)
    assert 1 < few.sensitivity < 1.001
    assert math.isclose(many.sensitivity - few.sensitivity, Sums(8192, 64).rounding - Sums(1, 1).rounding, rel_tol=1e-6)
    assert private(max_grad_norm=2.0, grouping="per-param").sensitivity == 2 * private().sensitivity


@pytest.mark.parametrize("shares", [2, 16])
def test_options_change_no_result_but_where_terms_cancel(shares):
    """Samples whose error is small are clipped alike on every plan; all others add less, and are counted."""
    ghost, materialised = private(), private(norm_strategy="materialise")
    for i in range(40):
        torch.manual_seed(i)
        x = torch.randn(1, 1, 12) * 10.0 ** (i / 8) + torch.randn(1, 16, 12)
        c = torch.randn(1, 1, 4) * (1 - 2 * (torch.arange(16) % shares < shares // 2).float())[None, :, None]
        norms = [added(module, x, c) for module in (ghost, materialised)]
        if ghost.num_cancelled:
            assert norms[0] <= norms[1] * (1 + 1e-3)
        else:
            torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=0)


def test_factors_that_underflow():
    """A subnormal factor has a digit or two, and may be rounded up by a third."""
    module = private(clipping="abadi", max_grad_norm=1e-12, norm_strategy="materialise")
    torch.manual_seed(0)
    x, c = torch.randn(1, 1, 12), torch.randn(1, 1, 4)
    for k in range(12):
        assert added(module, 1e31 * 1.2**k * x, c) <= module.sensitivity
        assert module.num_nonfinite == 1
