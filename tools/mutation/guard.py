"""A mutant that was written by hand: a guard on which privacy rests, and what breaks it."""

from dataclasses import dataclass

__all__ = ["Mutant", "guard"]

GUARDS = "tests/test_guards.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break one guard.

    Attributes:
        name: what is broken, a few words.
        file: the file, relative to the root.
        source: text that occurs exactly once in it.
        replacement: the text to put in its place.
        tests: pytest node ids, of which at least one must fail.
    """

    name: str
    file: str
    source: str
    replacement: str
    tests: tuple[str, ...]


def guard(name: str, file: str, source: str, replacement: str, *tests: str) -> Mutant:
    """A mutant that tests of `tests/test_guards.py` must kill."""
    return Mutant(name, f"dpgraph/{file}", source, replacement, tuple(f"{GUARDS}::test_{test}" for test in tests))
