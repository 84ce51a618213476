"""What the guards of a capture say of its sizes.

A graph runs only where its guards hold, so what they say is true of every run: that T is 4 * (T // 4), once the program
has split T into windows of 4. Sizes are compared in a normal form in which all of that was put to use. Quotients and
remainders are variables of their own here: nothing is known of them but what guards say.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import sympy
import torch
from sympy.logic.boolalg import BooleanFunction

from dpgraph.capture.batch import SMALLEST_TRACED
from dpgraph.capture.floors import without_floors
from dpgraph.torch_compat import Mod, ShapeEnv

__all__ = ["depends_on_batch", "size_of"]

Rules = Mapping[sympy.Expr, sympy.Expr]
_RULES: "WeakKeyDictionary[ShapeEnv, tuple[tuple[sympy.Symbol, int], Rules]]" = WeakKeyDictionary()


def size_of(size: Any, batch: sympy.Symbol) -> sympy.Expr:
    """A size, an int or a SymInt, in normal form: two are equal wherever the graph runs if their forms are."""
    if not isinstance(size, torch.SymInt):
        return sympy.Integer(size)
    return _reduce(without_floors(size.node.expr), _rules_of(size.node.shape_env, batch))


def depends_on_batch(condition: sympy.Basic, batch: sympy.Symbol, env: ShapeEnv) -> bool:
    """Whether a condition may hold for one B >= 2 and not for another, at some values of the other sizes.

    It does not if it compares a product with zero each of whose factors has the same sign for all B: a power of B, what
    is free of B, or k * B + c for a whole k and |c| < 2.
    """
    if batch not in condition.free_symbols:
        return False
    if isinstance(condition, BooleanFunction):
        return any(depends_on_batch(part, batch, env) for part in condition.args)
    if not isinstance(condition, sympy.Rel):
        return True
    rules = _rules_of(env, batch)
    left, right = (_reduce(_without_common_batch(without_floors(side), batch), rules) for side in condition.args)
    difference = sympy.expand(left - right)
    as_strict = {sympy.Ge: 1, sympy.Gt: -1, sympy.Le: -1, sympy.Lt: 1}.get(condition.func, 0)  # a >= b is a - b + 1 > 0
    shifts = {0, as_strict} if difference.is_integer else {0}
    return not any(_has_one_sign(difference + shift, batch) for shift in shifts)


def _has_one_sign(difference: sympy.Expr, batch: sympy.Symbol) -> bool:
    """Whether a polynomial in B and in further atoms has one sign for all B, whatever the values of those."""
    return all(_factor_has_one_sign(factor, batch) for factor in _factors(difference))


def _factor_has_one_sign(factor: sympy.Expr, batch: sympy.Symbol) -> bool:
    if batch not in factor.free_symbols:
        return True
    slope, rest = factor.coeff(batch, 1), factor.coeff(batch, 0)
    linear = sympy.expand(slope * batch + rest - factor) == 0 and batch not in slope.free_symbols
    return linear and bool(slope.is_integer and rest.is_Integer) and abs(rest) < SMALLEST_TRACED


def _without_common_batch(side: sympy.Expr, batch: sympy.Symbol) -> sympy.Expr:
    """Mod(B * a, B * b) as B * Mod(a, b), and Mod(a, B * a * b) as a, which is less; quotients cancel of themselves."""

    def remainder(top: sympy.Expr, bottom: sympy.Expr) -> sympy.Expr:
        if sympy.fraction(sympy.cancel(bottom / (top * batch)))[1] == 1:
            return top
        parts = sympy.cancel(top / batch), sympy.cancel(bottom / batch)
        common = not any(batch in part.free_symbols for part in parts)
        return batch * Mod(*parts) if common else Mod(top, bottom)

    return side.replace(Mod, remainder)


def _rules_of(env: ShapeEnv, batch: sympy.Symbol) -> Rules:
    """Atoms that guards make superfluous, with what they are equal to."""
    state = batch, len(env.guards)
    known = _RULES.get(env)
    if known is None or known[0] != state:
        known = _RULES[env] = (state, _solve(env, batch))
    return known[1]


def _solve(env: ShapeEnv, batch: sympy.Symbol) -> Rules:
    """What equations of sizes alone say; one that B is in holds for some batches and not for others."""
    conditions = [env.replace(guard.expr) for guard in env.guards]
    differ = [condition.lhs - condition.rhs for condition in conditions if isinstance(condition, sympy.Ne)]
    not_zero = {factor for difference in differ for factor in _factors(difference)}
    rules: dict[sympy.Expr, sympy.Expr] = {}
    for condition in conditions:
        if not isinstance(condition, sympy.Eq):
            continue
        factors = _factors(_reduce(condition.lhs - condition.rhs, rules))
        unsure = [factor for factor in factors if not factor.is_positive and factor not in not_zero]
        of_other_sizes = len(unsure) == 1 and batch not in unsure[0].free_symbols
        solved = _solve_for_an_atom(unsure[0]) if of_other_sizes else None
        if solved is not None:
            atom, value = solved
            rules = {known: _reduce(expression, {atom: value}) for known, expression in rules.items()}
            rules[atom] = value
    return rules


def _factors(product: sympy.Expr) -> list[sympy.Expr]:
    _, factors = sympy.factor_list(product)
    return [factor for factor, _ in factors]


def _solve_for_an_atom(zero: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr] | None:
    """The most intricate atom that an equation gives as a polynomial with whole coefficients in the others."""
    for atom in sorted(_atoms(zero), key=lambda a: (-sympy.count_ops(a), str(a))):
        slope = zero.coeff(atom, 1)
        rest = sympy.expand(zero - slope * atom)
        if abs(slope) == 1 and atom not in set(_atoms(rest)):
            return atom, sympy.expand(-rest / slope)
    return None


def _atoms(expression: sympy.Expr) -> Iterator[sympy.Expr]:
    """What a polynomial is one in: symbols, and whatever is no sum, product or power."""
    if isinstance(expression, (sympy.Add, sympy.Mul, sympy.Pow)):
        for part in expression.args:
            yield from _atoms(part)
    elif not expression.is_number:
        yield expression


def _reduce(expression: sympy.Expr, rules: Rules) -> sympy.Expr:
    """A polynomial with its atoms replaced; within an atom nothing is."""

    def replace(part: sympy.Expr) -> sympy.Expr:
        if part in rules:
            return rules[part]
        if isinstance(part, (sympy.Add, sympy.Mul, sympy.Pow)):
            return part.func(*map(replace, part.args))
        return part

    return sympy.expand(replace(expression)) if rules else expression
