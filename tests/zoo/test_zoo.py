"""The zoo: every architecture is exact in every parameter, or refused for a reason that stands here."""

import os
from pathlib import Path

import pytest

from tests.zoo.architectures import NIGHTLY, REFUSED, ZOO
from tests.zoo.measure import measure

TABLE = Path(__file__).parents[2] / "docs" / "zoo.md"
nightly = pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="only with the nightly profile")
MOST_FALLBACKS = 0.05


def check(row) -> None:
    assert not row.refusal, row.refusal
    assert row.skipped == ()
    assert row.error <= row.tolerance, row
    assert row.num_fallbacks <= MOST_FALLBACKS * row.num_sites, row


def test_there_are_as_many_as_promised():
    assert len(ZOO) >= 50
    names = [a.name for a in (*ZOO, *NIGHTLY)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("architecture", ZOO, ids=str)
def test_full(architecture):
    check(measure(architecture))


@nightly
@pytest.mark.parametrize("architecture", NIGHTLY, ids=str)
def test_full_of_all_others(architecture):
    check(measure(architecture))


@nightly
@pytest.mark.parametrize("architecture", [*ZOO, *NIGHTLY], ids=str)
def test_bitfit(architecture):
    check(measure(architecture, "bitfit"))


@pytest.mark.parametrize(("architecture", "reason"), REFUSED, ids=str)
def test_refused(architecture, reason):
    assert measure(architecture).refusal, reason


def test_the_table_in_the_documents_is_of_this_zoo():
    text = TABLE.read_text("utf-8")
    for architecture in (*ZOO, *(a for a, _ in REFUSED)):
        assert f"| {architecture.name} |" in text
    assert text.count("\n| ") == len(ZOO) + len(REFUSED) + 2
