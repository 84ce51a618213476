"""Generated mutants are valid, are other programs, leave messages alone, and know which tests they need."""

import ast
from pathlib import Path

import pytest

from tools.mutate import mutated_files
from tools.mutation.generate import Change, generate, sample
from tools.mutation.judge import Judged, Workshop, within
from tools.mutation.reach import LINES_PER_FILE, Reached, ReachMap, find_mentions, with_notes
from tools.mutation.results import Result, load, save, stale, summarise
from tools.mutation.survivors import ACCEPTED, Accepted
from tools.mutation.table import as_markdown
from tools.mutation.tree import Verdict

ROOT = Path(__file__).parent.parent.parent

EXAMPLE = '''"""A file — with a docstring that says a < b."""

__all__ = ["f", "TABLE"]

Alias = int | None
TABLE = {aten.mm.default, aten.bmm.default}


@rule("aten.mv.default", "aten.dot.default")
def f(x: int | None, y=1, *, keep=False):
    """Not x == y."""
    assert x == y
    if x is None or not (y < 2 and y not in TABLE):
        raise ValueError(f"{x == y}")
    if isinstance(x, (int, float)):
        return g(x, y, keep=True)[1:] + -y
    return all(h("no", x) // 2 for x in y if x)
'''


def whats(text: str) -> list[str]:
    return [change.what for change in generate("example.py", text)]


def test_every_mutant_parses_and_is_another_program():
    changes = generate("example.py", EXAMPLE)
    mutants = {mutate(EXAMPLE, change) for change in changes}
    assert len(mutants) == len({change.key for change in changes}) == len(changes)
    assert all(ast.dump(ast.parse(mutant)) != ast.dump(ast.parse(EXAMPLE)) for mutant in mutants)


def mutate(text: str, change: Change) -> str:
    data = text.encode()
    return (data[: change.edit.start] + change.edit.new.encode() + data[change.edit.end :]).decode()


def test_what_is_changed_and_what_is_not():
    assert whats(EXAMPLE) == [
        "without `aten.mm.default`",
        "without `aten.bmm.default`",
        'without `"aten.mv.default"`',
        'without `"aten.dot.default"`',
        "`1` → `2`",
        "`False` → `True`",
        "`x is None or not (y < 2 and y not in TABLE)` → `False`",
        "`x is None or not (y < 2 and y not in TABLE)` → `True`",
        "`is` → `is not`",
        "`or` → `and`",
        "`not (` → `(`",
        "`<` → `<=`",
        "`<` → `>=`",
        "`2` → `3`",
        "`and` → `or`",
        "`not in` → `in`",
        '`raise ValueError(f"{x == y}")` → `pass`',
        "`isinstance(x, (int, float))` → `False`",
        "`isinstance(x, (int, float))` → `True`",
        "`(int, float)` → `(float,)`",
        "`(int, float)` → `(int,)`",
        "`return g(x, y, keep=True)[1:] + -y` → `pass`",
        "`x, y` → `y, x`",
        "without `keep=True`",
        "`True` → `False`",
        "without `1`",
        "`1` → `2`",
        "`+` → `-`",
        "without `-`",
        "`all` → `any`",
        '`"no", x` → `x, "no"`',
        "`//` → `*`",
        "`2` → `3`",
        "`x` → `False`",
        "`x` → `True`",
    ]


def test_mutants_know_what_reaches_them():
    changes = {change.what: change for change in generate("example.py", EXAMPLE)}
    table = changes["without `aten.mm.default`"]
    assert (table.names, table.operator, table.reached_by) == (("TABLE",), "aten.mm.default", ())
    decorator = changes['without `"aten.dot.default"`']
    assert (decorator.operator, decorator.reached_by, decorator.scope) == ("aten.dot.default", (12,), "f")
    assert changes["`+` → `-`"].reached_by == (16,)
    assert find_mentions([EXAMPLE])["TABLE"] == {12}


def test_the_tests_of_a_mutant_are_those_that_reach_it_the_likely_ones_first():
    def case(name, seconds, *lines, operators=()):
        return Reached(name, seconds, frozenset(lines), frozenset(operators))

    table, *_, last = generate("example.py", EXAMPLE)
    elsewhere, here = case("tests/a::elsewhere", 1, 3), case("tests/a::here", 1, LINES_PER_FILE + 17)
    unit = case("tests/provenance/a::unit", 9, LINES_PER_FILE + 17)
    meets = case("tests/a::meets", 1, LINES_PER_FILE + 13, operators=["aten.mm.default"])
    reach = ReachMap(("other.py", "example.py"), (elsewhere, here, unit, meets), ())
    assert reach.tests_of(last, {}) == [unit, here]
    assert reach.tests_of(table, {"TABLE": {LINES_PER_FILE + 13}}) == [meets]
    assert within([unit, here], 5) == [unit]
    assert within([here, unit], 10) == [here, unit]


def test_the_lines_that_run_are_noted():
    text = "def f(x):\n    'doc'\n    if x:\n        y = 1\n    else:\n        y = 2\n    return y\n"
    reached = set()
    names = {"__reached__": reached.add}
    exec(compile(with_notes(ast.parse(text), 100), "f", "exec"), names)
    assert names["f"](True) == 1
    assert reached == {103, 104, 107}


def test_a_sample_is_drawn_from_each_file_and_always_the_same():
    changes = [*generate("a.py", EXAMPLE), *generate("b.py", "x = f(1, 2)\n"), *generate("c.py", EXAMPLE)]
    drawn = sample(changes, 10, seed=3)
    assert drawn == sample(changes, 10, seed=3) != sample(changes, 10, seed=4)
    assert len(drawn) == 10
    assert {change.file for change in drawn} == {"a.py", "b.py", "c.py"}
    assert sample(changes, 1000, seed=0) == changes


def test_survivors_are_counted_with_and_without_those_that_have_a_reason(tmp_path):
    changes = generate("a.py", EXAMPLE)[:4]
    verdicts = [Verdict.killed, Verdict.killed, Verdict.survived, Verdict.survived]
    results = [
        Result(c.file, c.scope, c.line, c.code, c.what, v, "why") for c, v in zip(changes, verdicts, strict=True)
    ]
    accepted = (Accepted("it is the same", (changes[3].key,)),)
    whole = summarise(results, accepted)
    assert (whole.total, whole.killed, whole.accepted, whole.percentage) == (4, 2, 1, 50)
    assert round(whole.percentage_without_accepted) == 67
    save(tmp_path / "results.json", "command", results)
    assert load(tmp_path / "results.json") == ("command", results)
    assert "| `a.py` | 4 | 2 |" in as_markdown("command", results)


def test_a_survivor_that_is_no_mutant_any_more_is_reported():
    changes = generate("a.py", EXAMPLE)
    gone = ("a.py", "f", "return x", "`x` → `y`")
    assert stale(changes, (Accepted("why", (changes[0].key, gone)),)) == [gone]


def test_the_accepted_survivors_are_mutants_of_this_source():
    files = {mutant[0] for group in ACCEPTED for mutant in group.mutants}
    assert files <= set(mutated_files())
    changes = [change for file in sorted(files) for change in generate(file, (ROOT / file).read_text("utf-8"))]
    assert stale(changes) == []
    keys = [mutant for group in ACCEPTED for mutant in group.mutants]
    assert len(keys) == len(set(keys))
    assert all(group.reason.endswith(".") for group in ACCEPTED)


@pytest.mark.parametrize(
    ("status", "verdict"), [(0, Verdict.survived), (1, Verdict.killed), (None, Verdict.killed), (98, Verdict.broken)]
)
def test_a_mutant_is_killed_by_a_failing_test_alone(tmp_path, monkeypatch, status, verdict):
    monkeypatch.setattr(Workshop, "__init__", lambda self, scratch: None)
    workshop = Workshop(tmp_path)
    workshop.tree, workshop.note, workshop.log = tmp_path, tmp_path / "note", tmp_path / "log"
    workshop.log.write_text("")
    (tmp_path / "example.py").write_text(EXAMPLE, "utf-8")
    (change, *_) = generate("example.py", EXAMPLE)

    class Ended:
        seconds = 1.0

    def run(self, tests):
        assert (tmp_path / "example.py").read_text("utf-8") == mutate(EXAMPLE, change)
        Ended.status = status
        return Ended

    monkeypatch.setattr(Workshop, "_run", run)
    judged = workshop.judge(change, [Reached("t", 1, frozenset(), frozenset())])
    assert isinstance(judged, Judged)
    assert judged.verdict is verdict
    assert (tmp_path / "example.py").read_text("utf-8") == EXAMPLE
    assert workshop.judge(change, []).verdict is Verdict.survived
