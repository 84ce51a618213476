"""Every sound twin through Inductor; the unsound ones are refused on both backends in tests/soundness."""

import pytest
import torch

from tests.programs.together import SmallCase, check_together
from tests.soundness.programs import PAIRS
from tests.soundness.test_soundness import make

pytestmark = [pytest.mark.inductor, pytest.mark.slow]
TOGETHER = 24


def twin(pair) -> SmallCase:
    model = make(pair.sound, pair.parts)
    return SmallCase(pair.name, model, ((torch.randn(6, *pair.shape, dtype=torch.float64),),))


@pytest.mark.parametrize("start", range(0, len(PAIRS), TOGETHER))
def test_sound_twins_are_exact(start):
    check_together([twin(pair) for pair in PAIRS[start : start + TOGETHER]], clipping="auto-v")
