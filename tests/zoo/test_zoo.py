"""The zoo: every architecture is exact in every parameter, or refused for a reason that stands here."""

from pathlib import Path

import pytest

from tests.models.own import OWN
from tests.nightly import IS_NIGHTLY
from tests.zoo.architectures import NIGHTLY, REFUSED, ZOO
from tests.zoo.measure import measure

TABLE = Path(__file__).parents[2] / "docs" / "zoo.md"
nightly = pytest.mark.skipif(not IS_NIGHTLY, reason="only with the nightly profile")
MOST_FALLBACKS = 0.05
# Every fifth one, of all families: the graph is that of "full", of which most is pruned.
BITFIT = ZOO[::5]


# Through Inductor, where each costs half a minute: those that differ most in what is made of their gradients.
INDUCTOR = tuple(
    a for a in ZOO if a.name.startswith(("GPT2", "Mamba", "Mixtral", "Beit", "ConvNextV2", "T5", "Segformer"))
)
OTHERS = tuple(a for a in (*ZOO, *NIGHTLY) if a not in INDUCTOR)
OFTEN = tuple(a for a in ZOO if a not in INDUCTOR)
BY_NIGHT = (*NIGHTLY, *INDUCTOR)


def check(row) -> None:
    assert not row.refusal, row.refusal
    assert row.skipped == ()
    assert row.error <= row.tolerance, row
    assert row.num_fallbacks <= MOST_FALLBACKS * row.num_sites, row


def test_there_are_as_many_as_promised():
    assert len(ZOO) - len(OWN) >= 40
    names = [a.name for a in (*ZOO, *NIGHTLY, *(r.architecture for r in REFUSED))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("architecture", OFTEN, ids=str)
def test_full(architecture):
    check(measure(architecture))


@pytest.mark.parametrize("architecture", BITFIT, ids=str)
def test_bitfit(architecture):
    check(measure(architecture, "bitfit"))


@pytest.mark.inductor
@pytest.mark.slow
@pytest.mark.parametrize("architecture", INDUCTOR, ids=str)
def test_full_through_inductor(architecture):
    check(measure(architecture, backend="inductor"))


@nightly
@pytest.mark.inductor
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "bitfit"])
@pytest.mark.parametrize("architecture", OTHERS, ids=str)
def test_all_others_through_inductor(architecture, mode):
    check(measure(architecture, mode, "inductor"))


@nightly
@pytest.mark.parametrize("architecture", BY_NIGHT, ids=str)
def test_full_of_all_others(architecture):
    check(measure(architecture))


@nightly
@pytest.mark.parametrize("architecture", [a for a in (*ZOO, *NIGHTLY) if a not in BITFIT], ids=str)
def test_bitfit_of_all_others(architecture):
    check(measure(architecture, "bitfit"))


@pytest.mark.parametrize("refusal", REFUSED, ids=str)
def test_refused(refusal):
    assert refusal.said in measure(refusal.architecture).refusal, refusal.reason


def test_the_table_in_the_documents_is_of_this_zoo():
    text = TABLE.read_text("utf-8")
    every = (*ZOO, *NIGHTLY, *(r.architecture for r in REFUSED))
    for architecture in every:
        assert f"| {architecture.name}{' *' if architecture in ZOO else ''} |" in text
    assert text.count("\n| ") == len(every) + 2
    assert "WRONG" not in text
