"""The measure of errors that every comparison with the loop over the samples rests on."""

import math

import pytest
import torch

from tests.oracle import PerSampleGradients
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


def test_clipping_a_group_up_makes_its_rounding_larger():
    gradients = {"large": torch.full((1,), 1e9, dtype=torch.float64), "small": torch.full((1,), 1e-4).double()}
    samples = PerSampleGradients({name: g.shape for name, g in gradients.items()}, (gradients,))
    how = ({name: (name,) for name in gradients}, "auto-v", math.sqrt(2))
    expected, wholes = samples.clipped_sum(*how), samples.whole_norms(*how)
    assert expected == {"large": 1, "small": 1}
    assert wholes == {"large": pytest.approx(1), "small": pytest.approx(1e13)}
    found = {"large": expected["large"] + 1e-9, "small": expected["small"] + 1e-9}  # 1e-13 before clipping
    errors = relative_errors(found, expected, whole_of=wholes)
    assert errors == {"large": pytest.approx(1e-9, rel=1e-4), "small": 0}


def test_a_wrong_gradient_is_an_error_however_small():
    assert error(2e-6, 1e-6) == pytest.approx(1, rel=1e-6)
    assert error(0.0, 1e-6) == pytest.approx(1, rel=1e-6)
