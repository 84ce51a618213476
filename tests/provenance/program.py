"""A program for the analysis, with the claim that is expected of each of its results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.provenance.analysed import Input


@dataclass(frozen=True)
class Program:
    """A function, its inputs, and what is expected of its results: an axis, "sum", "shared" or "refused" for each."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Input, ...]
    expected: tuple[Any, ...]


def program(name: str, expected: Any, function: Callable[..., Any], *inputs: Input) -> Program:
    return Program(name, function, inputs, expected if isinstance(expected, tuple) else (expected,))
