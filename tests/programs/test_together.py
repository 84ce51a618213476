"""Cases that are compiled together fail by name, and for what is wrong with them alone."""

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, UnsoundProgramError
from dpgraph.gradients.dense import Dense
from tests.models.run import Run
from tests.programs import together
from tests.programs.exact import EAGER
from tests.programs.together import SmallCase, check_together, measure_together


def small(name: str, function=lambda m, x: m.layer(x), bias: bool = True, **options) -> SmallCase:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64)
    return SmallCase(name, Run(function, layer=nn.Linear(3, 2, bias)).double(), ((x,), (x[:2],), (x[:0],)), **options)


MIXES = {"function": lambda m, x: m.layer(x).softmax(0)}


def test_each_case_has_its_mode_its_groups_and_all_its_calls():
    cases = [small("a"), small("b", mode="bitfit"), small("c", grouping="per-param")]
    check_together(cases, options=EAGER)
    assert [[p.requires_grad for p in case.model.parameters()] for case in cases] == [
        [True, True], [False, True], [True, True],
    ]  # fmt: skip
    assert measure_together([], clipping="abadi", options=EAGER) == []


def test_a_case_that_is_wrong_is_named(monkeypatch):
    right = Dense.weighted_sum
    monkeypatch.setattr(Dense, "weighted_sum", lambda form, w: right(form, w) * (1 + (form.g.shape[1:] == (2,))))
    odd = small("odd", bias=False)
    found = measure_together([small("a"), odd, small("b")], clipping="abadi", options=EAGER)
    assert [type(e) for e in found] == [AssertionError, float, AssertionError]
    with pytest.raises(AssertionError, match=r"^a: .*layer.bias.*\nb: "):
        check_together([small("a"), odd, small("b")], options=EAGER)


def test_cases_that_are_refused_are_found_among_the_others():
    cases = [small("a"), small("b"), small("mixes", **MIXES), small("c"), small("mixes too", **MIXES)]
    found = measure_together(cases, clipping="auto-s", options=EAGER)
    assert [type(e) for e in found] == [float, float, UnsoundProgramError, float, UnsoundProgramError]


def test_what_is_wrong_with_the_whole_alone_is_not_passed_over(monkeypatch):
    compiled = together.dp_compile

    def refuse_two(model, *args, **options):
        if len(model.each) == 2:
            raise ArgumentError("two", why="", fix="")
        return compiled(model, *args, **options)

    monkeypatch.setattr(together, "dp_compile", refuse_two)
    with pytest.raises(ArgumentError, match="two"):
        measure_together([small("a"), small("b")], clipping="auto-s", options=EAGER)
