"""Run the tests of one generated mutant after the other, each in a forked child."""

import compileall
import py_compile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.mutation.child import ASTRAY, PREPARING_FAILED, Ended, run_forked, run_pytest
from tools.mutation.generate import Change
from tools.mutation.reach import Reached
from tools.mutation.tree import ROOT, Verdict, copy_tree

__all__ = ["Judged", "Workshop", "within"]

# Exit status of pytest: 0 all passed, 1 some failed, 2 a file could not be imported, 5 no test was found.
PASSED, FAILED, INTERRUPTED, NONE_FOUND = 0, 1, 2, 5
# A mutant may take this many times as long as the tests did without it, and this much on top.
PATIENCE, GRACE_SECONDS = 6, 40


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a mutant, which test said so or why none did, and how long it took."""

    change: Change
    verdict: Verdict
    detail: str
    seconds: float


class _Selection:
    """A plugin of pytest: these tests alone, in this order; notes the one that fails."""

    def __init__(self, names: Sequence[str], note: Path) -> None:
        self.order = {name: i for i, name in enumerate(names)}
        self.note = note

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that were chosen."""
        items[:] = sorted((x for x in items if x.nodeid in self.order), key=lambda x: self.order[x.nodeid])

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down which test failed."""
        if report.failed:
            self.note.write_text(report.nodeid, "utf-8")

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down which file could not be imported."""
        if report.failed:
            self.note.write_text(f"import of {report.nodeid}", "utf-8")


class Workshop:
    """A copy of the tree in which mutants are made and tested."""

    def __init__(self, scratch: Path) -> None:
        self.tree = scratch / "tree"
        self.note, self.log = scratch / "note", scratch / "log"
        copy_tree(ROOT, self.tree)
        # by the hash of the source, since a mutant may have the size and the time of what it replaces
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.tree / "dpgraph", quiet=1, invalidation_mode=mode)

    def check_unbroken(self, tests: Sequence[Reached]) -> str | None:
        """None if the tests pass on the copy as it is; else what is wrong."""
        ended = self._run(tests)
        return None if ended.status == PASSED else f"{ended}: {self._why()}\n{self.log.read_text('utf-8')[-3000:]}"

    def judge(self, change: Change, tests: Sequence[Reached]) -> Judged:
        """Make a mutant, run its tests, and mend it again."""
        if not tests:
            return Judged(change, Verdict.survived, "no test reaches it", 0.0)
        path = self.tree / change.file
        original = path.read_bytes()
        edit = change.edit
        path.write_bytes(original[: edit.start] + edit.new.encode() + original[edit.end :])
        try:
            ended = self._run(tests)
        finally:
            path.write_bytes(original)
        if ended.status == PASSED:
            return Judged(change, Verdict.survived, f"passes {len(tests)} tests", ended.seconds)
        if ended.status in (ASTRAY, PREPARING_FAILED, NONE_FOUND):
            return Judged(change, Verdict.broken, self.log.read_text("utf-8")[-1500:], ended.seconds)
        why = self._why() if ended.status in (FAILED, INTERRUPTED) else f"no end: {ended}"
        return Judged(change, Verdict.killed, why, ended.seconds)

    def _why(self) -> str:
        return self.note.read_text("utf-8") if self.note.exists() else "?"

    def _run(self, tests: Sequence[Reached]) -> Ended:
        self.note.unlink(missing_ok=True)
        names = [test.name for test in tests]
        files = list(dict.fromkeys(name.partition("::")[0] for name in names))
        selection = _Selection(names, self.note)
        timeout = GRACE_SECONDS + PATIENCE * sum(test.seconds for test in tests)
        return run_forked(lambda: run_pytest(self.tree, files, [selection]), self.log, timeout)


def within(tests: Sequence[Reached], seconds: float) -> list[Reached]:
    """The first tests that take no longer than that together; at least one."""
    chosen: list[Reached] = []
    total = 0.0
    for test in tests:
        total += test.seconds
        if chosen and total > seconds:
            break
        chosen.append(test)
    return chosen
