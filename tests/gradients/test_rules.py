"""The laws that every rule must obey.

a gradient rule == the op, applied to each sample alone; its sum over the samples == the op on the whole batch
a linear rule == the op, applied to each sample's gradient
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.fallback import map_over_samples
from dpgraph.gradients.forms import Gradient
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.registry import PerSampleTensor
from dpgraph.gradients.rows import Rows
from dpgraph.gradients.rules import GRADIENT_RULES, LINEAR_RULES
from tests.gradients.certify import assert_certified
from tests.gradients.draws import BATCHES, EXACT, SIZES, randn

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """An op's arguments as a rule gets them, and how many axes a sample's operand has on top for the whole batch."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def stack(*shape: int) -> PerSampleTensor:
    return PerSampleTensor(randn(*shape))


def ids(high: int, *shape: int) -> PerSampleTensor:
    return PerSampleTensor(torch.randint(high, shape))


def case(op: Any, *args: Any, **kwargs: Any) -> Case:
    return Case(op, args, kwargs)


def convolution_case(batch: int, images: int, rank: int, transposed: bool, groups: int, wanted: list[bool]) -> Case:
    channels, out = 2 * groups, 3 * groups
    stride, padding, dilation = [2, 1, 3][:rank], [1, 0, 2][:rank], [1, 2, 1][:rank]
    output_padding = [1, 0, 2][:rank] if transposed else [0] * rank
    x = randn(batch, images, channels, *[7] * rank)
    shape = (channels, out // groups) if transposed else (out, channels // groups)
    weight = randn(*shape, *[3, 2, 1][:rank])
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    y = aten.convolution(x.flatten(0, 1), weight, None, *geometry)
    grad = PerSampleTensor(torch.randn_like(y).unflatten(0, (batch, images)))
    return case(aten.convolution_backward.default, grad, PerSampleTensor(x), weight, [out], *geometry, wanted)


def of_shared(c: Case, position: int) -> Case:
    """The case with the first sample's operand for all."""
    args = [x.stack[0] if i == position else x for i, x in enumerate(c.args)]
    return Case(c.op, tuple(args), c.kwargs)


def gradient_cases(batch: int, t: int, p: int, d: int) -> list[Case]:
    """Every registered gradient rule, with the shapes it must treat."""
    convolutions = [
        convolution_case(max(batch, 1), n, rank, transposed, groups, [False, True, True])
        for n in (1, 2)
        for rank in (1, 2, 3)
        for transposed in (False, True)
        for groups in (1, 2)
    ]
    return [
        case(aten.mm.default, stack(batch, p, t), stack(batch, t, d)),
        case(aten.mm.default, stack(batch, p, t), randn(t, d)),
        case(aten.bmm.default, stack(batch, 2, p, t), stack(batch, 2, t, d)),
        case(aten.bmm.default, stack(batch, 2, p, t), randn(2, t, d)),
        case(aten.sum.default, stack(batch, t, d)),
        case(aten.sum.dim_IntList, stack(batch, 1, t, d), [0, 1]),
        case(aten.sum.dim_IntList, stack(batch, 1, t, d), [0, -1], True),
        case(aten.sum.dim_IntList, stack(batch, 1, t, d), None),
        case(aten.sum.dim_IntList, stack(batch, 1, t, d), [1], dtype=torch.float32),
        case(aten.embedding_dense_backward.default, stack(batch, t, d), ids(p, batch, t), p, -1, False),
        case(aten.embedding_dense_backward.default, stack(batch, 1, t, d), ids(p, batch, 1, t), p, 0, False),
        case(aten.embedding_dense_backward.default, stack(batch, t, d), torch.randint(p, (t,)), p, -1, False),
        case(aten.embedding_dense_backward.default, stack(batch, t, d), ids(p, batch, t), p, -1, True),
        case(aten.index_put.default, zeros(p, d), [ids(p, batch, t)], stack(batch, t, d), True),
        case(aten.index_put.default, zeros(p, d), [ids(p, batch)], stack(batch, d), True),
        case(aten.index_put.default, zeros(p, d), [torch.arange(-p, 0)], stack(batch, p, d), True),
        case(aten.index_put.default, zeros(p, p, d), [ids(p, batch, t), ids(p, batch, t)], stack(batch, t, d), True),
        case(aten.index_put.default, zeros(p, d, t), [ids(p, batch, t)], stack(batch, t, d, t), True),
        case(aten.index_put.default, zeros(p, p), [ids(p, batch, t, 1), torch.arange(-p, 0)], stack(batch, t, p), True),
        case(aten.index_put.default, zeros(p, d), [ids(p, batch, t)], randn(t, d), True),
        case(aten.index_put.default, zeros(p, d), [torch.arange(p) >= 0], stack(batch, p, d), True),
        case(aten.index_put.default, zeros(p), [ids(p, batch, t)], stack(batch, t), True),
        *convolutions,
        of_shared(convolutions[0], 0),
        of_shared(convolutions[-1], 1),
        convolution_case(max(batch, 1), 1, 2, False, 1, [True, False, True]),
    ]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def evaluate(rule: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any], op: Any) -> list[Any]:
    result = rule(*args, **kwargs) if rule is not None else None
    if result is None:
        result = map_over_samples(op, args, kwargs)
    return list(result) if isinstance(result, tuple) else [result]


@settings(max_examples=15)
@given(BATCHES, SIZES, SIZES, SIZES, st.integers(0, 2**16))
def test_gradient_rules_are_the_op_on_each_sample(batch: int, t: int, p: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    for c in gradient_cases(batch, t, p, d):
        found = evaluate(GRADIENT_RULES[c.op], c.args, c.kwargs, c.op)
        stacks = [x for x in torch.utils._pytree.tree_leaves(c.args) if isinstance(x, PerSampleTensor)]
        for b in range(stacks[0].stack.shape[0]):
            alone = torch.utils._pytree.tree_map(
                lambda x, b=b: x.stack[b] if isinstance(x, PerSampleTensor) else x, c.args
            )
            expected = c.op(*alone, **c.kwargs)
            for form, e in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
                if form is not None:
                    torch.testing.assert_close(form.materialise()[b], e, **EXACT)
        for form in [form for form in found if form is not None and form.materialise().dtype == torch.float64]:
            w = torch.rand(stacks[0].stack.shape[0], dtype=torch.float64)
            torch.testing.assert_close(form.weighted_sum(w), torch.tensordot(w, form.materialise(), 1), **EXACT)
            norm_sq = form.materialise()[..., None].flatten(1).pow(2).sum(1)
            assert_certified(form.norm_sq(), norm_sq, rtol=EXACT["rtol"])
            assert_certified(form.dot(form, form.size().square()), norm_sq, rtol=EXACT["rtol"])


def test_what_gradient_rules_leave_to_the_fallback() -> None:
    cases = [c for c in gradient_cases(2, 2, 3, 4) if GRADIENT_RULES[c.op](*c.args, **c.kwargs) is None]
    left = ["mm", "bmm", "embedding_dense_backward", *["index_put"] * 2, "convolution_backward"]
    assert [str(c.op).split(".")[1] for c in cases] == left


def test_every_gradient_rule_has_a_case() -> None:
    assert {c.op for c in gradient_cases(2, 2, 2, 2)} == set(GRADIENT_RULES)


@dataclass(frozen=True)
class LinearCase:
    """A linear op: the call with the gradient in its place, for a gradient of `shape`, and in which forms it comes out.

    These are "kept" as they were, "outer" if they were plain outer products, "rows", "dense", or the case is left to
    the "fallback".
    """

    op: Any
    shape: tuple[int, ...]
    call: Callable[[Any], tuple[Any, ...]]
    forms: str = "dense"


LINEAR_CASES = [
    LinearCase(aten.alias.default, (3, 4), lambda g: (g,), "kept"),
    LinearCase(aten.clone.default, (3, 4), lambda g: (g,), "kept"),
    LinearCase(torch.ops.prims.convert_element_type.default, (3, 4), lambda g: (g, torch.float64), "kept"),
    LinearCase(aten.add.Tensor, (3, 4), lambda g: (g, g), "kept"),
    LinearCase(aten.sub.Tensor, (3, 4), lambda g: (g, 0.25 * g if isinstance(g, Tensor) else scaled(g, 0.25)), "kept"),
    LinearCase(aten.mul.Tensor, (3, 1), lambda g: (g, FACTOR)),
    LinearCase(aten.mul.Tensor, (3, 4), lambda g: (g, FACTOR[0])),
    LinearCase(aten.div.Tensor, (3, 1), lambda g: (g, FACTOR)),
    LinearCase(aten.sum.default, (3, 4), lambda g: (g,)),
    LinearCase(aten.sum.default, (), lambda g: (g,)),
    LinearCase(aten.sum.dim_IntList, (3, 4), lambda g: (g, [0])),
    LinearCase(aten.sum.dim_IntList, (2, 3, 4), lambda g: (g, [-1, 0], True)),
    LinearCase(aten.neg.default, (3, 4), lambda g: (g,), "kept"),
    LinearCase(aten.mul.Tensor, (3, 4), lambda g: (g, torch.tensor(2.0, dtype=torch.float64)), "kept"),
    LinearCase(aten.mul.Tensor, (3, 4), lambda g: (FACTOR, g)),
    LinearCase(aten.mul.Tensor, (4,), lambda g: (g, FACTOR)),
    LinearCase(aten.mul.Scalar, (3, 4), lambda g: (g, -0.5), "kept"),
    LinearCase(aten.div.Tensor, (3, 4), lambda g: (g, torch.tensor(3.0, dtype=torch.float64)), "kept"),
    LinearCase(aten.div.Tensor, (3, 4), lambda g: (g, FACTOR)),
    LinearCase(aten.div.Scalar, (3, 4), lambda g: (g, 4), "kept"),
    LinearCase(aten.mm.default, (3, 4), lambda g: (g, FACTOR.t()), "outer"),
    LinearCase(aten.mm.default, (3, 4), lambda g: (FACTOR.t(), g), "outer"),
    LinearCase(aten.bmm.default, (2, 3, 4), lambda g: (g, torch.stack([FACTOR.t(), FACTOR.t()]))),
    LinearCase(aten.bmm.default, (2, 3, 4), lambda g: (torch.stack([FACTOR.t(), FACTOR.t()]), g)),
    LinearCase(aten.cat.default, (3, 4), lambda g: ([g, g], -1)),
    LinearCase(aten.cat.default, (4,), lambda g: ([g, g, g],)),
    LinearCase(aten.permute.default, (3, 4), lambda g: (g, [1, 0]), "outer"),
    LinearCase(aten.permute.default, (2, 3, 4), lambda g: (g, [2, -3, 1])),
    LinearCase(aten.index.Tensor, (3, 4), lambda g: (g, [None, torch.tensor([2, 0, 2])])),
    LinearCase(aten._unsafe_index.Tensor, (3, 4), lambda g: (g, [torch.tensor([[1], [2]]), torch.tensor([0, 3])])),
    LinearCase(aten.view.default, (3, 4), lambda g: (g, [2, 6]), "outer"),
    LinearCase(aten.view.default, (3, 4), lambda g: (g, [-1]), "outer"),
    LinearCase(aten.view.default, (1, 1), lambda g: (g, []), "outer"),
    LinearCase(aten.unsqueeze.default, (3, 4), lambda g: (g, -1)),
    LinearCase(aten.unsqueeze.default, (3, 4), lambda g: (g, 0)),
    LinearCase(aten.squeeze.dims, (1, 3, 1), lambda g: (g, [0, -1])),
    LinearCase(aten.squeeze.dim, (1, 3), lambda g: (g, 0)),
    LinearCase(aten.squeeze.default, (1, 3, 1), lambda g: (g,)),
    LinearCase(aten.expand.default, (1, 4), lambda g: (g, [2, 3, -1])),
    LinearCase(aten.slice.Tensor, (3, 4), lambda g: (g, 1, 1, 3)),
    LinearCase(aten.slice.Tensor, (3, 4), lambda g: (g, -2, -2)),
    LinearCase(aten.select.int, (3, 4), lambda g: (g, -1, -2)),
    LinearCase(aten.slice_scatter.default, (2, 4), lambda g: (zeros(3, 4), g, 0, 1, 3)),
    LinearCase(aten.slice_scatter.default, (3, 2), lambda g: (zeros(3, 4), g, -1, 1, 3)),
    LinearCase(aten.select_scatter.default, (4,), lambda g: (zeros(3, 4), g, -2, 1)),
    LinearCase(aten.select_scatter.default, (3,), lambda g: (zeros(3, 4), g, 1, -1)),
    LinearCase(aten.constant_pad_nd.default, (3, 4), lambda g: (g, [1, 0, 0, 2])),
    LinearCase(torch.ops.prims.rev.default, (3, 4), lambda g: (g, [1])),
    LinearCase(aten.embedding_dense_backward.default, (3, 4), lambda g: (g, PLACES[0], 3, 1, False), "rows"),
    LinearCase(aten.embedding_dense_backward.default, (2, 3, 4), lambda g: (g, PLACES, 3, -1, False), "rows"),
    LinearCase(aten.embedding_dense_backward.default, (2, 3, 4), lambda g: (g, PLACES, 3, -1, True), "fallback"),
    LinearCase(aten.index_put.default, (3, 4), lambda g: (zeros(3, 4), [PLACES[1]], g, True), "rows"),
    LinearCase(aten.index_put.default, (2, 3, 4), lambda g: (zeros(3, 4), [PLACES], g, True), "rows"),
    LinearCase(aten.index_put.default, (3, 2, 2, 3), lambda g: (zeros(3, 2, 4), [None, None, PLACES], g, True)),
    LinearCase(aten.index_put.default, (2, 2, 3), lambda g: (zeros(2, 4, 4), [None, PLACES, PLACES], g, True)),
    LinearCase(aten.index_put.default, (2, 2, 3), lambda g: (zeros(2, 4, 4), [None, PLACES, PLACES[0]], g, True)),
    LinearCase(
        aten.index_put.default, (2, 3, 3), lambda g: (zeros(4, 3, 4), [PLACES, None, PLACES], g, True), "fallback"
    ),
    LinearCase(aten.index_put.default, (2, 3), lambda g: (zeros(4, 3, 4), [None, None, PLACES], g, True), "fallback"),
    LinearCase(aten.copy.default, (3, 4), lambda g: (zeros(3, 4), g), "kept"),
    LinearCase(aten.where.self, (3, 4), lambda g: (FACTOR > 0, g, ZERO)),
    LinearCase(aten.where.self, (3, 4), lambda g: (FACTOR[0] > 0, ZERO, g)),
    LinearCase(aten.where.self, (4,), lambda g: (FACTOR > 0, g, scaled(g, 2) if isinstance(g, tuple) else 2 * g)),
    LinearCase(aten.index_put.default, (2, 3), lambda g: (zeros(3, 4), [PLACES, PLACES], g, True)),
]
ZERO = torch.zeros((), dtype=torch.float64)
PLACES = torch.tensor([[0, 2, 0], [1, 1, 2]])
FACTOR = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def scaled(gradient: Gradient, c: float) -> Gradient:
    return tuple(form.scaled(c) for form in gradient)


def gradients_of(shape: tuple[int, ...], batch: int = 3) -> list[Gradient]:
    """A gradient of each form that can have the shape, and sums of them."""
    dense = Dense(randn(batch, *shape))
    if len(shape) != 2:
        return [(dense,)]
    p, d = shape
    outer = Outer(randn(batch, 5, p), randn(batch, 5, d))
    seen = Outer(randn(batch, 5, p * d), randn(batch, 5, 1)).seen_as(shape)
    rows = Rows(torch.randint(p, (batch, 5)), randn(batch, 5, d), p)
    return [(dense,), (outer,), (seen,), (rows,), (outer, outer), (rows, outer), (dense, dense)]


@pytest.mark.parametrize("c", LINEAR_CASES, ids=lambda c: str(c.op))
def test_linear_rules_are_the_op_on_each_gradient(c: LinearCase) -> None:
    for gradient in gradients_of(c.shape):
        whole = torch.stack([form.materialise() for form in gradient]).sum(0)
        carried = LINEAR_RULES[c.op](*c.call(gradient))
        check_forms(c.forms, gradient, carried)
        if carried is None:
            args = tuple(PerSampleTensor(whole) if x is gradient else x for x in c.call(gradient))
            fallen_back = map_over_samples(c.op, args, {})
            assert isinstance(fallen_back, Dense)
            carried = (fallen_back,)
        found = torch.stack([form.materialise() for form in carried]).sum(0)
        for b in range(3):
            torch.testing.assert_close(found[b], c.op(*c.call(whole[b])), **EXACT)


def check_forms(expected: str, gradient: Gradient, carried: Gradient | None) -> None:
    """What a rule makes of the forms decides how fast norms are, and whether the fallback is needed."""
    before, after = {type(form) for form in gradient}, {type(form) for form in carried or ()}
    plain = all(isinstance(form, Outer) and form.shape is None for form in gradient)
    match expected:
        case "kept":
            assert after == before
        case "outer":
            assert after == ({Outer} if plain else after)
            assert carried
        case "fallback":
            assert carried is None
        case _:
            assert after == {"rows": {Rows}, "dense": {Dense}}[expected]


def test_every_linear_rule_has_a_case() -> None:
    assert {c.op for c in LINEAR_CASES} == set(LINEAR_RULES)


def test_two_owners_of_an_operator_are_refused() -> None:
    from dpgraph.gradients.registry import gradient_rule

    with pytest.raises(AssertionError, match="two rules"):
        gradient_rule(aten.mm.default)(lambda: None)
