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


BILINEAR = ("bilinear_in_the_sample",) * 3
FAILED_ONCE = {
    "torch's fake of a padding's gradient has other strides than the gradient": Case(
        ImageProgram(4, 2, 6, ("residual_in_place", *["replicating_convolution"] * 2), channels_last=True, seed=11),
        mode="full", clipping="abadi", grouping="per-param",
    ),
    "torch's gradient of a single image in channels-last layout, in the loop": Case(
        ImageProgram(2, 4, 3, ("replicating_convolution", "patches", "convolution_with_groups"), True, seed=61),
        mode="trainable", grouping="per-param",
    ),
    "a small gradient that is clipped up, and its rounding with it": Case(
        SequenceProgram(2, 3, 2, (*BILINEAR, "attention_pooling"), tied=True, frozen=frozenset({1, 4, 7}), seed=2),
        mode="full", grouping="per-layer",
    ),
    "a norm of zero off squares that are rounded": Case(
        SequenceProgram(
            2, 2, 2, ("sorted_features", "instance_norm", "prelu", "instance_norm"), True, frozen=frozenset({8, 7}),
            seed=14,
        ),
        mode="trainable", grouping="per-layer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILED_ONCE.values(), ids=FAILED_ONCE)
def test_programs_that_failed_once(case):
    check_case(case)


@few
@given(cases(sequence_programs()))
def test_programs_on_sequences(case):
    check_case(case)


@few
@given(cases(image_programs()))
def test_programs_on_images(case):
    check_case(case)
