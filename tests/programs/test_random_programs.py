"""Random models against the loop over the samples; each step of the grammar at least once, beside one other.

`python -m tools.random_programs` checks thousands of them.
"""

from itertools import zip_longest

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

# Each is a compilation, of a second or two.
few = settings(max_examples=settings().max_examples * 2 // 5)


def in_twos(names) -> list[tuple[str, ...]]:
    """By itself each step would cost a compilation of its own."""
    names = list(names)
    return [tuple(filter(None, pair)) for pair in zip_longest(names[::2], names[1::2])]


@pytest.mark.parametrize("steps", in_twos(SEQUENCE_STEPS), ids="-".join)
def test_each_step_on_sequences(steps):
    sizes = (3, 3, 3) if len(steps[0]) % 2 else (2, 4, 3)
    check_case(Case(SequenceProgram(*sizes, steps=steps), clipping="abadi"))


@pytest.mark.parametrize("steps", in_twos(IMAGES), ids="-".join)
def test_each_step_on_images(steps):
    check_case(Case(ImageProgram(3, 4, 5, steps=steps), clipping="abadi"))


@few
@given(cases(sequence_programs()))
def test_programs_on_sequences(case):
    check_case(case)


@few
@given(cases(image_programs()))
def test_programs_on_images(case):
    check_case(case)
