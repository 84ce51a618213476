"""What is known of the mutants of a run: kept in a file, so that the survivors alone can be tried again."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.mutation.generate import Change, Key
from tools.mutation.survivors import ACCEPTED, Accepted
from tools.mutation.tree import Verdict

__all__ = ["Result", "Summary", "load", "save", "stale", "summarise"]


@dataclass(frozen=True, slots=True)
class Result:
    """A mutant, what became of it, and the test that said so or why none did."""

    file: str
    scope: str
    line: int
    code: str
    what: str
    verdict: Verdict
    detail: str

    @property
    def key(self) -> Key:
        """What the mutant is known by."""
        return self.file, self.scope, self.code, self.what


@dataclass(frozen=True, slots=True)
class Summary:
    """How many mutants there were, were killed, and were accepted as survivors with a reason."""

    total: int
    killed: int
    accepted: int

    @property
    def percentage(self) -> float:
        """Of all mutants, those that were killed."""
        return 100 * self.killed / self.total if self.total else 100.0

    @property
    def percentage_without_accepted(self) -> float:
        """Of the mutants that are not accepted as survivors, those that were killed."""
        rest = self.total - self.accepted
        return 100 * self.killed / rest if rest else 100.0


def reasons(accepted: Sequence[Accepted] = ACCEPTED) -> dict[Key, str]:
    """The reason of each accepted survivor."""
    return {mutant: group.reason for group in accepted for mutant in group.mutants}


def stale(changes: Iterable[Change], accepted: Sequence[Accepted] = ACCEPTED) -> list[Key]:
    """Accepted survivors that are no mutants of the source as it is."""
    generated = {change.key for change in changes}
    return [key for key in reasons(accepted) if key not in generated]


def summarise(results: Iterable[Result], accepted: Sequence[Accepted] = ACCEPTED) -> Summary:
    """The counts of some results."""
    known, several = reasons(accepted), list(results)
    killed = sum(r.verdict is Verdict.killed for r in several)
    spared = sum(r.verdict is Verdict.survived and r.key in known for r in several)
    return Summary(len(several), killed, spared)


def save(path: Path, command: str, results: Iterable[Result]) -> None:
    """Write the results with the command that gave them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": command, "results": [asdict(r) for r in results]}, indent=0), "utf-8")


def load(path: Path) -> tuple[str, list[Result]]:
    """The command and the results of the last run."""
    found = json.loads(path.read_text("utf-8"))
    return found["command"], [Result(**(r | {"verdict": Verdict(r["verdict"])})) for r in found["results"]]
