"""The symmetric sum over pairs of positions is the plain one, at lengths that are halved, and at odd ones."""

import pytest
import torch

from dpgraph.gradients.gram import SMALLEST_BLOCK, gram_dot, gram_norm_sq
from dpgraph.gradients.outer import Outer
from tests.gradients.certify import assert_certified
from tests.gradients.largest import LargestResult

LONG = 2 * SMALLEST_BLOCK


@pytest.mark.parametrize("num_samples", [0, 1, 3])
@pytest.mark.parametrize("length", [0, 1, 5, LONG - 1, LONG, LONG + 1, 2 * LONG, 3 * LONG - 2, 4 * LONG + 3])
def test_the_norm_of_the_materialised_gradient(length, num_samples):
    torch.manual_seed(0)
    u = torch.randn(num_samples, length, 3, dtype=torch.float64)
    v = torch.randn(num_samples, length, 4, dtype=torch.float64)
    found = gram_norm_sq(u, v)
    assert found.shape == (num_samples,)
    torch.testing.assert_close(found, (u.mT @ v).square().sum((1, 2)))
    torch.testing.assert_close(found, gram_dot(u, u, v, v))


def test_positions_may_lie_in_memory_in_any_order():
    torch.manual_seed(0)
    u = torch.randn(3, 4, LONG, dtype=torch.float64).mT
    v = torch.randn(LONG, 5, 3, dtype=torch.float64).permute(2, 0, 1)
    assert_certified(Outer(u, v).norm_sq(), (u.mT @ v).square().sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float64(dtype):
    ones = torch.full((2, LONG, 4), 30.0, dtype=dtype)
    found = gram_norm_sq(ones, ones)
    torch.testing.assert_close(found, torch.full((2,), (LONG * 900.0) ** 2 * 16, dtype=torch.float64))


def test_no_square_of_a_long_sequence_is_held():
    u = torch.randn(1, 16 * LONG, 2)
    with LargestResult(torch.ops.aten.bmm.default) as largest:
        gram_norm_sq(u, u)
    assert largest.numel == (8 * LONG) ** 2
