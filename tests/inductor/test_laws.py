"""The laws of forms and rules, where Inductor computes the left side: op by op nothing of what it does is seen.

materialise_b == the op on sample b alone          norm_sq == |materialise|^2
weighted_sum(w) == sum_b w_b materialise_b         dot == <materialise, materialise>
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.fallback import map_over_samples
from dpgraph.gradients.forms import Form, Gradient, materialise, tensors_of, with_tensors
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.registry import PerSampleTensor
from dpgraph.gradients.rows import Rows
from dpgraph.gradients.rules import GRADIENT_RULES, LINEAR_RULES
from tests.gradients.draws import randn
from tests.gradients.test_forms import Geometry, transformed
from tests.gradients.test_rules import LINEAR_CASES, Case, LinearCase, evaluate, gradient_cases, gradients_of
from tests.inductor.compiled import compile_together

pytestmark = [pytest.mark.inductor, pytest.mark.slow]

# No other size is 5.
B = 5
WEIGHTS = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.25], dtype=torch.float64)


@dataclass(frozen=True)
class Law:
    """A function that is compiled, its tensors, and what it must give."""

    name: str
    function: Any
    tensors: Sequence[Tensor]
    expected: Sequence[Tensor]


def check(laws: Sequence[Law]) -> None:
    """Pass if all hold; else say which do not."""
    found = compile_together([(law.function, law.tensors) for law in laws], B)
    wrong = []
    for law, results in zip(laws, found, strict=True):
        single = any(x.dtype == torch.float32 for x in law.expected)
        for i, (x, y) in enumerate(zip(results, law.expected, strict=True)):
            if not torch.allclose(x, y, rtol=1e-5 if single else 1e-11, atol=1e-5 if single else 1e-11):
                wrong.append(f"{law.name}: result {i} is off by {(x - y).abs().max():.1e}")
    assert not wrong, "\n".join(wrong)


def all_of(form: Form, w: Tensor) -> list[Tensor]:
    return [form.materialise(), form.norm_sq().value, form.weighted_sum(w), form.product(form)]


def all_of_materialised(g: Tensor) -> list[Tensor]:
    norm_sq = g.double().reshape(B, -1).square().sum(1)
    return [g, norm_sq, torch.tensordot(WEIGHTS.to(g.dtype), g, 1), norm_sq]


def forms() -> list[Form]:
    p, d = 3, 4
    return [
        Dense(randn(B, p, d)),
        Outer(randn(B, 2, p), randn(B, 2, d)),
        Outer(randn(B, 1, p), randn(B, 1, d)),
        Outer(randn(B, 6, d), randn(B, 6, p)).seen_as((p, -1)),
        Rows(torch.randint(p, (B, 2)), randn(B, 2, d), p),
    ]


def laws_of_forms() -> Iterator[Law]:
    for form in forms():
        own = tensors_of((form,))

        def alone(w: Tensor, *values: Tensor, form: Form = form) -> list[Tensor]:
            return all_of(with_tensors((form,), values)[0], w)

        yield Law(type(form).__name__, alone, [WEIGHTS, *own], all_of_materialised(form.materialise()))
        for other in forms():
            both = (form, other)

            def dot(*values: Tensor, both: Gradient = both) -> list[Tensor]:
                a, b = with_tensors(both, values)
                return [a.product(b)]

            expected = (form.materialise() * other.materialise()).sum((1, 2))
            yield Law(f"{type(form).__name__} . {type(other).__name__}", dot, tensors_of(both), [expected])


def laws_of_convolutions() -> Iterator[Law]:
    for geometry in (
        Geometry((2, 1), (1, 2), (1, 2), False, (0, 0), 1),
        Geometry((2, 1), (1, 0), (1, 2), True, (1, 0), 1),
    ):
        form = transformed(geometry, B)

        def alone(w: Tensor, *values: Tensor, form: Form = form) -> list[Tensor]:
            return all_of(with_tensors((form,), values)[0], w)

        yield Law(f"{geometry}", alone, [WEIGHTS, *tensors_of((form,))], all_of_materialised(form.materialise()))


def law_of_gradient_rule(c: Case) -> Law:
    leaves, spec = tree_flatten(c.args)
    stacked = [isinstance(x, PerSampleTensor) for x in leaves]
    given = [own or (isinstance(x, Tensor) and not is_zero(x)) for x, own in zip(leaves, stacked, strict=True)]

    def function(w: Tensor, *values: Tensor) -> list[Tensor]:
        left = iter(values)
        put = [next(left) if of_call else made_inside(x) for x, of_call in zip(leaves, given, strict=True)]
        args = tree_unflatten([PerSampleTensor(x) if own else x for x, own in zip(put, stacked, strict=True)], spec)
        results = evaluate(GRADIENT_RULES[c.op], args, c.kwargs, c.op)
        return [y for form in results if form is not None for y in all_of(form, w)]

    present = [form is not None for form in evaluate(GRADIENT_RULES[c.op], c.args, c.kwargs, c.op)]

    def of_sample(b: int) -> list[Tensor]:
        alone = tree_map(lambda x: x.stack[b] if isinstance(x, PerSampleTensor) else x, c.args)
        result = c.op(*alone, **c.kwargs)
        several = result if isinstance(result, tuple) else (result,)
        return [x for x, kept in zip(several, present, strict=True) if kept]

    samples = zip(*(of_sample(b) for b in range(B)), strict=True)
    expected = [y for several in samples for y in all_of_materialised(torch.stack(several))]
    tensors = [x.stack if own else x for x, own, of_call in zip(leaves, stacked, given, strict=True) if of_call]
    return Law(f"{c.op} {[list(x.shape) for x in tensors]}", function, [WEIGHTS, *tensors], expected)


def is_zero(x: Tensor) -> bool:
    return x.is_floating_point() and not x.any()


def made_inside(x: Any) -> Any:
    """Zeros to write into are made in the graph, where Inductor may write in place; inputs it leaves alone."""
    return torch.zeros(x.shape, dtype=x.dtype) if isinstance(x, Tensor) else x


def law_of_linear_rule(c: LinearCase, gradient: Gradient) -> Law:
    def function(*values: Tensor) -> list[Tensor]:
        form = with_tensors(gradient, values)
        carried = LINEAR_RULES[c.op](*c.call(form))
        if carried is None:
            whole = materialise(form)
            args = tuple(PerSampleTensor(whole) if x is form else x for x in c.call(form))
            fallen_back = map_over_samples(c.op, args, {})
            assert isinstance(fallen_back, Dense)
            carried = (fallen_back,)
        return [materialise(carried)]

    whole = materialise(gradient)
    expected = torch.stack([c.op(*c.call(whole[b])) for b in range(B)])
    kinds = " + ".join(type(form).__name__ for form in gradient)
    return Law(f"{c.op} of {kinds} {list(c.shape)}", function, tensors_of(gradient), [expected])


def test_forms():
    check([*laws_of_forms(), *laws_of_convolutions()])


@pytest.mark.parametrize("part", ["convolution", "index_put", "others"])
def test_gradient_rules(part):
    cases = gradient_cases(B, 2, 3, 4)
    parts = {id(c): next((name for name in ("convolution", "index_put") if name in str(c.op)), "others") for c in cases}
    check([law_of_gradient_rule(c) for c in cases if parts[id(c)] == part])


def test_linear_rules():
    check([law_of_linear_rule(c, g) for c in LINEAR_CASES for g in gradients_of(c.shape, B)[:4]])
