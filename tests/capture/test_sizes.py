"""Sizes in normal form, and conditions that are the same for every batch."""

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpgraph.capture.sizes import depends_on_batch, size_of
from dpgraph.torch_compat import FakeTensorMode, FloorDiv, Mod, ShapeEnv, symbolic_fake

B, T = (sympy.Symbol(name, integer=True, positive=True) for name in "BT")
W = FloorDiv(T, 4)
SIZES = [B, T, W, sympy.Integer(1), sympy.Integer(2), sympy.Integer(4)]


@st.composite
def sizes(draw: st.DrawFn) -> sympy.Expr:
    """Sums of products, perhaps with a remainder or a quotient of two."""

    def product(*more: sympy.Expr) -> sympy.Expr:
        return sympy.Mul(*draw(st.lists(st.sampled_from([*SIZES, *more]), min_size=1, max_size=3)))

    match draw(st.sampled_from(["product", "product", "sum", "remainder", "quotient"])):
        case "product":
            return product(T - 5)
        case "sum":
            return product(T - 5) + product(T - 5)
        case "remainder":
            return Mod(product(), product().subs(W, T))
        case _:
            return FloorDiv(product(), product().subs(W, T))


def form(size: int | torch.SymInt) -> sympy.Expr:
    return size_of(size, B)


RELATIONS = [sympy.Eq, sympy.Ne, sympy.Ge, sympy.Gt, sympy.Le, sympy.Lt]


@given(left=sizes(), right=sizes(), relation=st.sampled_from(RELATIONS))
def test_a_condition_said_not_to_depend_on_the_batch_is_the_same_for_every_batch(left, right, relation):
    condition = relation(left, right)
    if not depends_on_batch(condition, B, ShapeEnv()):
        for length in range(1, 14):
            assert len({bool(condition.subs({B: n, T: length})) for n in range(2, 12)}) == 1, (condition, length)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_numbers_about_multiples_of_the_batch(relation, times):
    """Whether they are passed by all batches at once is for each side of each relation another number."""
    for number in range(-7, 8):
        for condition in (relation(times * B, number), relation(number, times * B), relation(times * B / 3, number)):
            if not depends_on_batch(condition, B, ShapeEnv()):
                assert len({bool(condition.subs(B, n)) for n in range(2, 12)}) == 1, condition


SHARE = sympy.Symbol("share", positive=True)


@pytest.mark.parametrize(
    "condition",
    [
        sympy.Eq(4 * B * T, 16 * B * W),
        sympy.Ne(Mod(B, B * (W + 1)), 0),
        sympy.Ne(Mod(W, B * W * T), 0),
        sympy.Ne(B * W, B),
        sympy.Ne(B * W, 1),
        sympy.Ge(B * W, 2),
        sympy.Gt(4 * B * W * T, 4 * W),
        sympy.Eq(FloorDiv(B * T, B * W), 4),
        sympy.Gt(B, 1),
        sympy.Ge(B, 2),
        sympy.Le(B, 1),
        sympy.Lt(B, 2),
        sympy.Gt(1, B),
        sympy.Ge(1, B),
        sympy.Gt(B * SHARE, 0),
        sympy.Lt(B * W, 1),
        sympy.Le(B * W, 1),
        sympy.And(sympy.Gt(B * W, 0), sympy.Lt(T, 8)),
        sympy.Or(sympy.Gt(B * W, 0), sympy.Lt(T, 8)),
    ],
    ids=str,
)
def test_conditions_on_other_sizes(condition):
    assert not depends_on_batch(condition, B, ShapeEnv())


@pytest.mark.parametrize(
    "condition",
    [
        sympy.Eq(B, 4),
        sympy.Lt(B, T),
        sympy.Gt(B * (T - 5), 3),
        sympy.Eq(Mod(B * T, 8), 0),
        sympy.Eq(Mod(B, 4), 1),
        sympy.Ne(FloorDiv(B, 2), 1),
        sympy.Ge(B * T, 9),
        sympy.Gt(B * SHARE, 1),
        sympy.Gt(B + SHARE, 1),
        sympy.And(sympy.Gt(B * W, 0), sympy.Lt(B, 8)),
        sympy.Or(sympy.Gt(B * W, 0), sympy.Lt(B, 8)),
        B,
    ],
    ids=str,
)
def test_conditions_on_the_batch(condition):
    assert depends_on_batch(condition, B, ShapeEnv())


@pytest.fixture
def size() -> torch.SymInt:
    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False))
    fake = symbolic_fake(mode, torch.zeros(3, 24), 1)
    assert isinstance(fake.shape[1], torch.SymInt)
    return fake.shape[1]


def test_what_a_guard_says_is_put_to_use(size):
    windows = 4 * (size // 4)
    assert form(size) != form(windows)
    assert bool(size == windows)
    assert form(size) == form(windows)
    assert form(3 * size + 1) == form(12 * (size // 4) + 1)
    assert form(size // 4) != form(size)


def test_what_several_guards_say_is_put_together(size):
    assert bool(size == 4 * (size // 4))
    assert bool(size // 4 == 2 * (size // 8))
    assert form(size) == form(8 * (size // 8))
    assert form(size * size) == form(32 * (size // 4) * (size // 8))


def test_a_factor_that_may_be_zero_says_nothing_of_the_others(size):
    assert bool((size // 5) * (size // 6 - 4) == 0)
    assert form(size // 6) == (size // 6).node.expr
    assert bool(size // 5 != 0)
    assert form(size // 6) == 4


def test_sizes_that_differ_are_a_factor_that_is_not_zero(size):
    a, b = size // 5, size // 6
    assert bool((a - b - 2) * (size // 8 - 3) == 0)
    assert form(size // 8) == (size // 8).node.expr
    assert bool(a != b + 2)
    assert form(size // 8) == 3


def test_a_size_is_no_factor_that_may_be_zero(size):
    assert bool(size * (size // 6 - 4) == 0)
    assert form(size // 6) == 4


def test_a_guard_on_the_batch_says_nothing(size):
    assert bool(size == 4 * (size // 4))
    assert form(size) == form(4 * (size // 4))
    batch = size.node.expr
    assert size_of(size, batch) == batch
    assert size_of(4 * (size // 4), batch) != batch


def test_what_no_whole_number_of_the_others_is_stays_as_it_is(size):
    a, b = size // 5, size // 9
    assert bool(2 * a == 3 * b + 2)
    assert (form(a), form(b)) == (a.node.expr, b.node.expr)


def test_an_equation_is_not_solved_for_what_occurs_in_the_solution(size):
    a, b = size // 5, size // 6
    assert bool(a * a + a + b == 24)
    assert form(a) == a.node.expr
    assert form(b) == form(24 - a * a - a)


def test_a_number_is_its_own_size():
    assert form(5) == sympy.Integer(5)
