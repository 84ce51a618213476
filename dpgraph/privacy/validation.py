"""Checks of numbers; written positively, so that NaN fails all of them."""

import math

from dpgraph.errors import ArgumentError

__all__ = ["require_count", "require_non_negative", "require_positive", "require_probability"]


def require_positive(name: str, value: float, *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is finite and above 0."""
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        raise ArgumentError(f"{name} is {value!r}", why=why, fix=f"give a finite {name} above 0")


def require_non_negative(name: str, value: float, *, why: str) -> None:
    """Raise `ArgumentError` unless `value` is finite and at least 0."""
    if not (_is_number(value) and math.isfinite(value) and value >= 0):
        raise ArgumentError(f"{name} is {value!r}", why=why, fix=f"give a finite {name} of at least 0")


def require_probability(name: str, value: float, *, why: str, may_be_one: bool) -> None:
    """Raise `ArgumentError` unless `value` is above 0 and below 1 (or 1 itself, if `may_be_one`)."""
    if not (_is_number(value) and 0 < value <= 1 and (may_be_one or value < 1)):
        raise ArgumentError(f"{name} is {value!r}", why=why, fix=f"give a {name} in (0, 1{']' if may_be_one else ')'}")


def require_count(name: str, value: object, *, why: str, minimum: int = 0) -> None:
    """Raise `ArgumentError` unless `value` is an int of at least `minimum`."""
    if not (isinstance(value, int) and not isinstance(value, bool) and value >= minimum):
        raise ArgumentError(f"{name} is {value!r}", why=why, fix=f"give a whole number of at least {minimum}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
