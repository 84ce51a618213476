"""The measure of errors that every comparison with the loop over the samples rests on."""

import math

import pytest
import torch

from tests.oracle.comparison import relative_errors

WHOLE = torch.ones(4, dtype=torch.float64)


def error(found: float, expected: float) -> float:
    """That of a parameter of one element, beside one whose gradient makes the whole."""
    small = {"whole": WHOLE, "small": torch.tensor([expected], dtype=torch.float64)}
    return relative_errors({**small, "small": torch.tensor([found], dtype=torch.float64)}, small)["small"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_an_error(bad):
    assert not error(bad, 1.0) <= 1e10


def test_a_difference_of_large_numbers_is_no_closer_than_their_rounding():
    assert error(4e-9 + 1e-17, 4e-9) == 0
    assert error(4e-9 + 1e-13, 4e-9) > 1e-5


def test_a_wrong_gradient_is_an_error_however_small():
    assert error(2e-6, 1e-6) == pytest.approx(1, rel=1e-6)
    assert error(0.0, 1e-6) == pytest.approx(1, rel=1e-6)
