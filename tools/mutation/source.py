"""A source file as text whose pieces can be replaced: the places of a syntax tree as offsets in bytes."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Edit", "Source"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the bytes from `start` to `end`."""

    start: int
    end: int
    new: str


@dataclass(frozen=True)
class Source:
    """The text of a file. `ast` counts columns in bytes of UTF-8, so all offsets here are in bytes."""

    text: str

    @cached_property
    def data(self) -> bytes:
        """The text as bytes."""
        return self.text.encode()

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for line in self.data.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends; parentheses around it are not its own."""
        assert isinstance(node, (ast.expr, ast.stmt, ast.keyword, ast.arg))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._line_starts[node.lineno - 1] + node.col_offset
        return start, self._line_starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def between(self, left: ast.AST, right: ast.AST, pattern: str) -> tuple[int, int] | None:
        """Where the pattern stands in the gap between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        found = re.search(pattern.encode(), self.data[start:end])
        return (start + found.start(), start + found.end()) if found else None

    def replaced(self, edit: Edit) -> str:
        """The text after an edit."""
        return (self.data[: edit.start] + edit.new.encode() + self.data[edit.end :]).decode()

    def line_at(self, offset: int) -> tuple[int, str]:
        """Number of the line of an offset, from 1, and its text."""
        number = self.data.count(b"\n", 0, offset) + 1
        return number, self.text.splitlines()[number - 1].strip()
