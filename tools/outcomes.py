"""Outcomes of a long run, written down one by one, so that a run that was stopped goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Log"]


@dataclass(frozen=True)
class Log:
    """A file with a line of JSON for each outcome; without a path nothing is read or kept."""

    path: Path | None = None

    def read(self) -> list[dict[str, Any]]:
        """What earlier runs have written."""
        if self.path is None or not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def add(self, outcome: Mapping[str, Any]) -> str:
        """Write one outcome at once; the line that says it."""
        line = json.dumps(outcome)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        return line
