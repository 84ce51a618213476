"""The mutation run judges rightly, and its table is about the source as it is."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from dpgraph.torch_compat import compile_native
from tools.mutant_table import MUTANTS, Mutant
from tools.mutants import apply, judge
from tools.mutation.tree import Verdict

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name.replace(" ", "_"))
def test_the_table_is_about_this_source(mutant):
    broken = apply(mutant, (ROOT / mutant.file).read_text("utf-8"))
    if mutant.file.endswith(".py"):
        compile(broken, mutant.file, "exec")
    else:
        assert compile_native(broken) is not None
    for test in mutant.tests:
        file, _, name = test.partition("::")
        functions = {
            n.name for n in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))) if isinstance(n, ast.FunctionDef)
        }
        assert name in functions


def test_no_mutant_stands_twice_in_the_table():
    assert all(n == 1 for n in Counter(m.name for m in MUTANTS).values())
    assert all(n == 1 for n in Counter((m.file, m.source, m.replacement) for m in MUTANTS).values())


@pytest.fixture
def tree(tmp_path):
    """A tree with one guarded function, a test of it and one that never runs it."""
    (tmp_path / "root.py").write_text("def root(x):\n    assert x >= 0\n    return x**0.5\n")
    (tmp_path / "test_root.py").write_text(
        "import pytest\n"
        "from root import root\n\n"
        "def test_value():\n    assert root(4) == 2\n\n"
        "def test_guard():\n    with pytest.raises(AssertionError):\n        root(-1)\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("source", "replacement", "test", "verdict"),
    [
        ("    assert x >= 0\n", "", "test_root.py::test_guard", Verdict.killed),
        ("    assert x >= 0\n", "", "test_root.py::test_value", Verdict.survived),
        ("def root(x):", "def root(x:", "test_root.py::test_guard", Verdict.broken),
        ("def root(x):", "def toor(x):", "test_root.py::test_guard", Verdict.broken),
        ("x", "y", "test_root.py::test_guard", Verdict.broken),
        ("    assert x >= 0\n", "", "test_root.py::test_gone", Verdict.broken),
    ],
)
def test_a_mutant_is_killed_by_a_failing_test_alone(tree, source, replacement, test, verdict):
    before = (tree / "root.py").read_text()
    outcome = judge(Mutant("made up", "root.py", source, replacement, (test,)), tree)
    assert outcome.verdict is verdict, outcome.detail
    assert (tree / "root.py").read_text() == before
