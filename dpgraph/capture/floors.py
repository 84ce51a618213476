"""Whole quotients of sizes, rounded down, that come out the same way for sizes of every value.

`split` counts its pieces by rounding: 3 B rows in pieces of B are (4 B - 1) // B pieces, which is 3 whatever B is.
"""

import sympy

from dpgraph.torch_compat import FloorDiv

__all__ = ["is_never_negative", "without_floors"]


def without_floors(expression: sympy.Expr) -> sympy.Expr:
    """The same with q for every a // b if 0 <= a - q b < b holds for all sizes, which are 1 at least.

    Numbers that come from data have symbols too, of which nothing is known; where there is one, nothing is changed.
    """
    if not expression.has(FloorDiv) or not all(s.is_positive and s.is_integer for s in expression.free_symbols):
        return expression
    return expression.replace(FloorDiv, _divided)


def _divided(top: sympy.Expr, bottom: sympy.Expr) -> sympy.Expr:
    whole = _leading_quotient(top, bottom)
    for q in () if whole is None else (whole, whole - 1):
        rest = sympy.expand(top - q * bottom)
        if is_never_negative(rest) and is_never_negative(sympy.expand(bottom - rest - 1)):
            return q
    return FloorDiv(top, bottom)


def _leading_quotient(top: sympy.Expr, bottom: sympy.Expr) -> sympy.Expr | None:
    """What becomes of the quotient without the constant term above; None if it is no polynomial."""
    leading = sympy.cancel(sympy.expand(top).as_independent(*top.free_symbols, as_Add=True)[1] / bottom)
    whole = leading.is_polynomial(*leading.free_symbols) and all(c.is_Integer for c in _coefficients(leading))
    return leading if whole else None


def is_never_negative(polynomial: sympy.Expr) -> bool:
    """Whether no sizes of 1 or more make it negative: with 1 + n for each, no coefficient is."""
    symbols = polynomial.free_symbols
    if not polynomial.is_polynomial(*symbols):
        return False
    return all(c >= 0 for c in _coefficients(polynomial.subs({s: s + 1 for s in symbols}, simultaneous=True)))


def _coefficients(polynomial: sympy.Expr) -> list[sympy.Expr]:
    symbols = sorted(polynomial.free_symbols, key=str)
    return sympy.Poly(polynomial, *symbols).coeffs() if symbols else [polynomial]
