"""Mutants that no test need kill, and why: each is the same program, or differs in what nobody was promised.

A mutant is named by its file, its function, the text of its line and the change, as `python -m tools.mutate` prints
them. An entry that names no mutant any more is stale, and the run says so.
"""

from dataclasses import dataclass

__all__ = ["ACCEPTED", "Accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Mutants that survive for one reason."""

    reason: str
    mutants: tuple[tuple[str, str, str, str], ...]


ACCEPTED: tuple[Accepted, ...] = ()
