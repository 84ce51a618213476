"""Random models against the loop over the samples; each step of the grammar at least once, by itself.

`python -m tools.random_programs` checks thousands of them.
"""

import pytest
from hypothesis import given, settings

from tests.programs.check import Case, cases, check_case
from tests.programs.grammar import (
    SEQUENCE_STEPS,
    ImageProgram,
    SequenceProgram,
    image_programs,
    sequence_programs,
)
from tests.programs.images import IMAGES


@pytest.mark.parametrize("step", SEQUENCE_STEPS)
def test_each_step_on_sequences(step):
    sizes = (3, 3, 3) if len(step) % 2 else (2, 4, 3)
    check_case(Case(SequenceProgram(*sizes, steps=(step,)), clipping="abadi"))


@pytest.mark.parametrize("step", IMAGES)
def test_each_step_on_images(step):
    check_case(Case(ImageProgram(3, 4, 5, steps=(step,)), clipping="abadi"))


@settings(max_examples=settings().max_examples * 3 // 5)
@given(cases(sequence_programs()))
def test_programs_on_sequences(case):
    check_case(case)


@settings(max_examples=settings().max_examples * 3 // 5)
@given(cases(image_programs()))
def test_programs_on_images(case):
    check_case(case)
