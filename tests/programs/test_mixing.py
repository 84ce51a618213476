"""Steps that are planted do mix, and dpgraph refuses each by itself, at any batch size."""

import pytest
import torch

from tests.programs.check import Case, check_case
from tests.programs.grammar import ImageProgram, SequenceProgram
from tests.programs.mixing import MIXES_IMAGES, MIXES_SEQUENCES, NEEDS_POSITIONS


def moves_another_sample(step, x, attempts=5) -> bool:
    """Whether another sample's output moves when one sample is replaced."""
    step = step.double()
    before = step(x)
    for attempt in range(attempts):
        b = attempt % len(x)
        changed = x.clone()
        changed[b] = 3 * torch.randn_like(x[b])
        moved = (step(changed) - before).abs().flatten(1).amax(1) > 1e-6
        if moved[torch.arange(len(x)) != b].any():
            return True
    return False


@pytest.mark.parametrize("size", [(2, 2, 2), (3, 3, 3), (4, 1, 2), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("name", MIXES_SEQUENCES)
def test_steps_on_sequences_mix(name, size):
    B, T, d = size
    if T > 1 or name not in NEEDS_POSITIONS:
        step = MIXES_SEQUENCES[name](T, d)
        x = torch.randn(B, T, d, dtype=torch.float64)
        assert step.double()(x).shape == x.shape
        assert moves_another_sample(step, x)


@pytest.mark.parametrize("size", [(2, 2, 1, 1), (3, 4, 3, 2)], ids=str)
@pytest.mark.parametrize("name", MIXES_IMAGES)
def test_steps_on_images_mix(name, size):
    step = MIXES_IMAGES[name](size[1])
    x = torch.randn(size, dtype=torch.float64)
    assert step.double()(x).shape == x.shape
    assert moves_another_sample(step, x)


def test_the_experiment_does_not_see_mixing_where_there_is_none():
    assert not moves_another_sample(torch.nn.Linear(3, 3), torch.randn(3, 3, 3, dtype=torch.float64))


# All batch sizes by turns.
@pytest.mark.parametrize(("batch", "name"), [(i % 4, name) for i, name in enumerate(MIXES_SEQUENCES)])
def test_steps_on_sequences_are_refused(batch, name):
    assert check_case(Case(SequenceProgram(batch, 2, 2, (name,), mixes=name))) is None


@pytest.mark.parametrize(("batch", "name"), [(i % 4, name) for i, name in enumerate(MIXES_IMAGES)])
def test_steps_on_images_are_refused(batch, name):
    assert check_case(Case(ImageProgram(batch, 2, 3, (name,), mixes=name))) is None


def test_an_accepted_program_that_is_said_to_mix_is_a_failure():
    with pytest.raises(AssertionError, match="accepted, though linear mixes"):
        check_case(Case(SequenceProgram(2, 2, 2, ("linear",), mixes="linear")))
