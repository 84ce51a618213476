"""Checks of arguments, for all that users call; written positively, so that NaN fails all of them.

Numbers are Python's or numpy's; True and False are none.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NoReturn, TypeGuard

from dpgraph.errors import ArgumentError

__all__ = [
    "require_choice",
    "require_count",
    "require_flag",
    "require_non_negative",
    "require_positive",
    "require_probability",
    "require_share",
]


def require_positive(name: str, value: object, *, why: str, hint: str = "") -> None:
    """Raise `ArgumentError` unless `value` is finite and above 0; the hint says what is usual."""
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        _refuse(name, value, why, f"give a finite {name} above 0" + (hint and f"; {hint}"))


def require_non_negative(name: str, value: object, *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is finite and at least 0."""
    if not (_is_number(value) and math.isfinite(value) and value >= 0):
        _refuse(name, value, why, f"give a finite {name} of at least 0")


def require_probability(name: str, value: object, *, why: str, may_be_one: bool) -> None:
    """Raise `ArgumentError` unless `value` is above 0 and below 1 (or 1 itself, if `may_be_one`)."""
    if not (_is_number(value) and 0 < value <= 1 and (may_be_one or value < 1)):
        _refuse(name, value, why, f"give a {name} in (0, 1{']' if may_be_one else ')'}")


def require_share(name: str, value: object, *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is from 0 to 1, both included."""
    if not (_is_number(value) and 0 <= value <= 1):
        _refuse(name, value, why, "give a number from 0 to 1")


def require_count(name: str, value: object, *, why: str, minimum: int = 0) -> None:
    """Raise `ArgumentError` unless `value` is an int of at least `minimum`."""
    if not (isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum):
        _refuse(name, value, why, f"give a whole number of at least {minimum}")


def require_flag(name: str, value: object, *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is True or False."""
    if not isinstance(value, bool):
        _refuse(name, value, why, "give True or False")


def require_choice(name: str, value: object, choices: Sequence[str], *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is one of the choices."""
    if not (isinstance(value, str) and value in choices):
        _refuse(name, value, why, f"choose one of {', '.join(map(repr, choices))}")


def _refuse(name: str, value: object, why: str, fix: str) -> NoReturn:
    raise ArgumentError(f"{name} is {value!r}", why=why, fix=fix)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
