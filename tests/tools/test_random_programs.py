"""The run draws the same programs for the same seed, and every kind of failure is one."""

from collections import Counter

import pytest

from dpgraph.gradients.dense import Dense
from tests.programs.check import Case, check_case
from tests.programs.grammar import SequenceProgram
from tools import random_programs
from tools.random_programs import Verdict, draw_cases, main

SOUND = Case(SequenceProgram(2, 2, 2, ("linear",)))
PLANTED = Case(SequenceProgram(2, 2, 2, ("linear", "flipped_batch"), mixes="flipped_batch"))


def test_the_draws_depend_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr(random_programs, "PROGRAMS_PER_DRAW", 30)
    few, many = list(draw_cases(20, 3)), list(draw_cases(60, 3))
    assert many[:20] == few
    assert len(many) == 60
    assert list(draw_cases(20, 4)) != few


def test_some_programs_are_planted_and_each_knows_it():
    drawn = list(draw_cases(300, 0))
    planted = [case.program for case in drawn if case.program.mixes is not None]
    assert 0.1 < len(planted) / len(drawn) < 0.5
    assert all(program.mixes in program.steps for program in planted)
    assert Counter(type(case.program).__name__ for case in drawn).keys() == {"SequenceProgram", "ImageProgram"}


@pytest.mark.slow
def test_processes_come_and_go_and_no_program_is_lost(monkeypatch):
    """Programs that cannot be built fail at once, whatever process they are in."""
    monkeypatch.setattr(random_programs, "PROGRAMS_PER_WORKER", 2)
    numbered = [(i, Case(SequenceProgram(2, 2, 2, (f"no such step {i}",)))) for i in range(3)]
    outcomes = list(random_programs.check_all([(program,) for program in numbered], jobs=1))
    assert [(o.index, o.case) for o in outcomes] == numbered
    assert {o.verdict for o in outcomes} == {Verdict.crashed}


@pytest.mark.parametrize(("step", "has_another"), [("rows_of_all_samples", False), ("linear", True)])
def test_a_program_is_called_at_another_length_if_it_is_the_same_there(step, has_another):
    program = SequenceProgram(3, 2, 2, (step,))
    _, x = program.build()
    assert (program.longer(x, 2) is not None) == has_another


def test_a_case_is_printed_as_python_reads_it():
    names = {"Case": Case, "SequenceProgram": SequenceProgram}
    assert eval(repr(PLANTED), names) == PLANTED


@pytest.fixture
def two_programs(monkeypatch):
    monkeypatch.setattr(random_programs, "draw_cases", lambda num_programs, seed: iter([SOUND, PLANTED]))


@pytest.mark.usefixtures("two_programs")
def test_all_is_well(capsys):
    assert main(["--programs", "2"]) == 0
    last_row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│ all"))
    cells = [cell.strip() for cell in last_row.strip("│").split("│")]
    assert cells[:4] == ["all", "2", "1", "1"]
    assert set(cells[4:-1]) == {"0"}
    assert float(cells[-1]) < 1e-10


@pytest.mark.usefixtures("two_programs")
def test_a_wrong_gradient_is_a_failure(monkeypatch, capsys):
    right = Dense.weighted_sum
    monkeypatch.setattr(Dense, "weighted_sum", lambda form, w: right(form, w) * 1.01)
    assert main(["--seed", "7"]) == 1
    out = capsys.readouterr().out
    assert f"{Verdict.disagrees.value}: python -m tools.random_programs --seed 7 --only 0" in out
    assert repr(SOUND) in out


@pytest.mark.usefixtures("two_programs")
def test_an_accepted_unsound_program_is_a_failure(monkeypatch, capsys):
    unplanted = Case(SequenceProgram(2, 2, 2, ("linear",), mixes="linear"))
    monkeypatch.setattr(random_programs, "check_case", lambda case, options: check_case(unplanted, options))
    assert main([]) == 1
    assert Verdict.accepted.value in capsys.readouterr().out


@pytest.mark.usefixtures("two_programs")
def test_a_run_that_was_stopped_goes_on(monkeypatch, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    assert main(["--programs", "2", "--log", str(log)]) == 0
    lines = log.read_text("utf-8").splitlines()
    assert len(lines) == 2
    log.write_text(lines[0] + "\n", "utf-8")
    checked = []
    monkeypatch.setattr(random_programs, "check_case", lambda case, options: checked.append(case))
    assert main(["--programs", "2", "--log", str(log)]) == 0
    assert checked == [PLANTED]
    assert len(log.read_text("utf-8").splitlines()) == 2
    checked.clear()
    assert main(["--programs", "2", "--log", str(log), "--seed", "9"]) == 0
    assert checked == [SOUND, PLANTED]


def test_what_goes_together_through_inductor():
    drawn = list(enumerate(draw_cases(120, 0)))
    packs = random_programs.pack(drawn, "inductor")
    assert sorted(i for several in packs for i, _ in several) == list(range(120))
    for several in packs:
        assert len(several) == 1 or all(case.program.mixes is None for _, case in several)
        assert len({(case.clipping, case.program.batch) for _, case in several}) == 1
        assert len(several) <= random_programs.PROGRAMS_TOGETHER
    assert len(packs) < 80
    assert random_programs.pack(drawn, "eager") == [(numbered,) for numbered in drawn]


@pytest.mark.inductor
@pytest.mark.slow
def test_a_sample_through_inductor():
    together = max(random_programs.pack([*enumerate(draw_cases(150, 0))], "inductor"), key=len)
    assert len(together) >= 8
    assert {o.verdict for o in random_programs.check(together[:8], "inductor")} == {Verdict.exact}


@pytest.mark.inductor
@pytest.mark.slow
def test_programs_of_one_graph_have_verdicts_of_their_own(monkeypatch):
    right = Dense.weighted_sum
    monkeypatch.setattr(Dense, "weighted_sum", lambda form, w: right(form, w) * (1 + (form.g.shape[1] == 3)))
    wrong = Case(SequenceProgram(2, 2, 3, ("linear",)))
    outcomes = random_programs.check(((0, SOUND), (1, wrong), (2, SOUND)), "inductor")
    assert [o.verdict for o in outcomes] == [Verdict.exact, Verdict.disagrees, Verdict.exact]
    (outcome,) = random_programs.check(((0, PLANTED),), "inductor")
    assert outcome.verdict is Verdict.refused


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case(SequenceProgram(2, 2, 2, ("flipped_batch",))), Verdict.refused_sound),
        (Case(SequenceProgram(2, 2, 2, ("no such step",))), Verdict.crashed),
        (Case(PLANTED.program, mode="no such mode"), Verdict.refused_otherwise),
    ],
    ids=lambda x: x.name if isinstance(x, Verdict) else None,
)
def test_every_other_failure_has_a_name(case, verdict):
    (outcome,) = random_programs.check(((0, case),))
    assert outcome.verdict is verdict, outcome.detail
    assert outcome.detail
