"""Which tests run which lines of dpgraph, and meet which operators of torch: a mutant needs no other tests.

The map is made in one run of the tests, in which the files that are mutated are compiled with a note before each
statement. It is kept under `.cache/`, by the contents of dpgraph/ and tests/.
"""

import ast
import builtins
import hashlib
import importlib.machinery
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.mutation.child import run_forked, run_pytest
from tools.mutation.generate import Change
from tools.mutation.tree import ROOT, copy_tree

__all__ = ["ReachMap", "Reached", "find_reach"]

# In the order in which they are asked. Those of Inductor are slow, and see what the eager backend sees.
TESTS = (
    "tests/capture",
    "tests/provenance",
    "tests/gradients",
    "tests/sites",
    "tests/soundness",
    "tests/test_guards.py",
    "tests/test_bad_input.py",
    "tests/test_audit.py",
    "tests/test_losses.py",
    "tests/test_inner_losses.py",
    "tests/test_peer_faults.py",
    "tests/test_plan_forms.py",
    "tests/test_varying_sizes.py",
    "tests/programs",
)
UNITS = TESTS[:4]
# Many random programs take longer than a mutant is given.
CHOSEN = ("-m", "not inductor and not slow", "-k", "not programs_on and not biases_of_programs")
CACHE = ROOT / ".cache" / "mutation"
LINES_PER_FILE = 10_000
MINUTES = 45


@dataclass(frozen=True, slots=True)
class Reached:
    """A test that passes: how long it takes, which numbered lines it runs, which operators it meets."""

    name: str
    seconds: float
    lines: frozenset[int]
    operators: frozenset[str]


@dataclass(frozen=True)
class ReachMap:
    """What every test reaches.

    Attributes:
        files: they give lines their numbers.
        tests: those that pass.
        modules: what the tests import from outside.
        at_import: lines that run as soon as dpgraph is imported, in all tests.
    """

    files: tuple[str, ...]
    tests: tuple[Reached, ...]
    modules: tuple[str, ...]
    at_import: frozenset[int] = frozenset()

    def tests_of(self, change: Change, mentions: dict[str, set[int]]) -> list[Reached]:
        """The tests that reach a mutant, those first that are most likely to notice it and quick.

        Args:
            change: the mutant.
            mentions: for each name that a module binds the lines that run where it is used.
        """
        offset = self.files.index(change.file) * LINES_PER_FILE
        lines = {offset + line for line in change.reached_by}
        for name in change.names:
            lines |= mentions.get(name, set())
        everywhere = not lines or not lines.isdisjoint(self.at_import)
        found = [test for test in self.tests if everywhere or not lines.isdisjoint(test.lines)]
        if change.operator:
            # a case of the laws of the rules meets its operator in no graph
            met = [t for t in found if change.operator in t.operators]
            found = met + [t for t in found if t not in met and t.name.startswith(UNITS)]
        return sorted(found, key=lambda test: (not test.name.startswith(UNITS), test.seconds))


def find_mentions(texts: Iterable[str]) -> dict[str, set[int]]:
    """For each name that a module binds, the first lines of the functions that mention it, numbered by `ReachMap`.

    Args:
        texts: of the files, in the order of the map.
    """
    trees = [ast.parse(text) for text in texts]
    functions = [
        (i * LINES_PER_FILE + _body(node)[0].lineno, ast.unparse(node))
        for i, tree in enumerate(trees)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    names = {n for tree in trees for statement in tree.body for n in _bound(statement)}
    return {name: {line for line, text in functions if re.search(rf"\b{name}\b", text)} for name in names}


def _bound(statement: ast.stmt) -> Iterable[str]:
    if isinstance(statement, ast.ClassDef):
        return (statement.name,)
    return (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _body(function: ast.FunctionDef) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return function.body[1:] if is_docstring and len(function.body) > 1 else function.body


# ---------------------------------------------------------------- making the map


def find_reach(files: Sequence[str], scratch: Path) -> ReachMap:
    """The map of the tree as it is; from the cache if that knows the tree."""
    path = CACHE / f"reach-{_digest(files)}.json"
    if not path.exists():
        tree = scratch / "reach"
        copy_tree(ROOT, tree)
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"running the tests once, to see which lines each of them reaches ({path.name})", flush=True)
        log = CACHE / "reach.log"
        ended = run_forked(lambda: _record(tree, files, path), log, MINUTES * 60)
        if not path.exists():
            raise RuntimeError(f"the tests could not be run ({ended}):\n{log.read_text('utf-8')[-4000:]}")
    found = json.loads(path.read_text("utf-8"))
    tests = (Reached(n, s, frozenset(lines), frozenset(ops)) for n, s, lines, ops in found["tests"])
    return ReachMap(tuple(found["files"]), tuple(tests), tuple(found["modules"]), frozenset(found["at_import"]))


def _digest(files: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((list(files), TESTS, CHOSEN)).encode())
    for folder in ("dpgraph", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("tests/tools/"):
                digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _record(tree: Path, files: Sequence[str], path: Path) -> int:
    """Run the tests with notes in the files, and write what each reached."""
    before = set(sys.modules)
    recorder = _Recorder()
    _install(tree, files, recorder.lines)
    tests = [test for test in TESTS if (tree / test).exists()]
    status = run_pytest(tree, [*CHOSEN, "--maxfail=1000", *tests], [recorder])
    ours = ("dpgraph", "tests", "tools", "conftest", "__main__")
    modules = [n for n in sys.modules if n not in before and n.partition(".")[0] not in ours]
    found = {
        "files": list(files),
        "tests": recorder.passed,
        "modules": modules,
        "at_import": sorted(recorder.at_import or ()),
    }
    path.write_text(json.dumps(found), "utf-8")
    return status


class _Recorder:
    """A plugin of pytest that keeps what each test that passed has reached."""

    def __init__(self) -> None:
        self.lines: set[int] = set()
        self.at_import: frozenset[int] | None = None
        self.operators: set[str] = set()
        self.passed: list[tuple[str, float, list[int], list[str]]] = []
        create_node = torch.fx.Graph.create_node

        def noting(graph: torch.fx.Graph, op: str, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
            if isinstance(target, torch._ops.OpOverload):
                self.operators.add(str(target))
            return create_node(graph, op, target, *args, **kwargs)

        torch.fx.Graph.create_node = noting  # type: ignore[assignment, method-assign]

    @pytest.hookimpl
    def pytest_runtest_setup(self) -> None:
        """Forget what the test before has reached."""
        if self.at_import is None:
            self.at_import = frozenset(self.lines)
        self.lines.clear()
        self.operators.clear()

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test has reached."""
        if report.when == "call" and report.passed:
            self.passed.append((report.nodeid, report.duration, sorted(self.lines), sorted(self.operators)))


def _install(tree: Path, files: Sequence[str], reached: set[int]) -> None:
    """Have the files compiled with a note before each statement of a function."""
    offsets = {str(tree / file): i * LINES_PER_FILE for i, file in enumerate(files)}
    loader = importlib.machinery.SourceFileLoader
    compiled = loader.source_to_code
    vars(builtins)["__reached__"] = reached.add

    def noting(self: Any, data: Any, path: Any, **options: Any) -> Any:
        if str(path) not in offsets:
            return compiled(self, data, path, **options)
        return compile(with_notes(ast.parse(data), offsets[str(path)]), path, "exec", dont_inherit=True)

    loader.source_to_code = noting  # type: ignore[method-assign]


def with_notes(tree: ast.Module, offset: int) -> ast.Module:
    """Before each statement of a function, docstrings aside, a call that notes its line."""
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        docstring = function.body[: len(function.body) - len(_body(function))]
        function.body = docstring + _noting(_body(function), offset)
    return ast.fix_missing_locations(tree)


def _noting(statements: list[ast.stmt], offset: int) -> list[ast.stmt]:
    noted: list[ast.stmt] = []
    for statement in statements:
        (note,) = ast.parse(f"__reached__({offset + statement.lineno})").body
        noted += [ast.copy_location(note, statement), statement]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue  # those inside are treated by themselves
        for name in ("body", "orelse", "finalbody"):
            if inside := getattr(statement, name, None):
                setattr(statement, name, _noting(inside, offset))
        for branch in [*getattr(statement, "cases", ()), *getattr(statement, "handlers", ())]:
            branch.body = _noting(branch.body, offset)
    return noted
