"""Every sound twin through Inductor; the unsound ones are refused on both backends in tests/soundness."""

import pytest
import torch

from dpgraph import CaptureError
from tests.programs.together import SmallCase, check_together, measure_together
from tests.soundness.programs import PAIRS
from tests.soundness.test_soundness import make

pytestmark = [pytest.mark.inductor, pytest.mark.slow]
TOGETHER = 24

# Sizes that a tensor's values tell, of which Inductor asks more than anybody can know: an error. Those of slices are so
# without dpgraph, too (tests/torch_defects).
NOT_LOWERED = {
    "up to the longest of the batch",
    "from the second to one behind the longest",
    "rows repeated as often as samples say",
}
# In one graph with the others its kernel is given a tensor of a layout that it does not take: an error, of torch's.
ALONE = "largest of windows over a volume without a batch"
LOWERED = [pair for pair in PAIRS if pair.name not in NOT_LOWERED and pair.name != ALONE]


def twin(pair) -> SmallCase:
    model = make(pair.sound, pair.parts)
    return SmallCase(pair.name, model, ((torch.randn(6, *pair.shape, dtype=torch.float64),),))


def named(name) -> SmallCase:
    (found,) = (pair for pair in PAIRS if pair.name == name)
    return twin(found)


@pytest.mark.parametrize("start", range(0, len(LOWERED), TOGETHER))
def test_sound_twins_are_exact(start):
    check_together([twin(pair) for pair in LOWERED[start : start + TOGETHER]], clipping="auto-v")


def test_a_sound_twin_is_exact_alone():
    check_together([named(ALONE)], clipping="auto-v")


@pytest.mark.parametrize("name", sorted(NOT_LOWERED))
def test_what_inductor_does_not_lower_is_an_error(name):
    (error,) = measure_together([named(name)], clipping="auto-v")
    assert isinstance(error, CaptureError)
    assert "data-dependent expression" in error.what
