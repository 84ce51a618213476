"""Transfer rules from outside: they open the way for an operator, and are held against what it does."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, UnsoundProgramError, UnsupportedProgramError, dp_compile
from dpgraph.provenance.custom import register_transfer
from dpgraph.provenance.lattice import PerSample, Shared, SummedOverSamples
from dpgraph.provenance.registry import _TRANSFERS, REGISTERED, Step
from tests.programs.exact import check_exact

EAGER = CompileOptions(backend="eager")


def operator(name: str, function, result_like=torch.empty_like):
    """A differentiable operator of one tensor that multiplies its argument with `function` of the argument's values."""
    op = torch.library.custom_op(f"dpgraph_custom::{name}", function, mutates_args=(), schema="(Tensor x) -> Tensor")
    op.register_fake(result_like)
    return getattr(torch.ops.dpgraph_custom, name).default


SINE = operator("sine", lambda x: x.sin())
SCALED = operator("scaled_by_row", lambda x: x / (1 + x.abs().amax(-1, keepdim=True)))
REVERSED = operator("reversed", lambda x: x.flip(0))
CENTRED = operator("centred", lambda x: x - x.mean(0))
TOTAL = operator("total", lambda x: x.sum(0), lambda x: x.new_empty(x.shape[1:]))
SQUARED_TOTAL = operator("squared_total", lambda x: x.sum(0).square(), lambda x: x.new_empty(x.shape[1:]))


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("these values are not for me")


PICKY = operator("picky", fails)
# 0 and 1 are their own squares
FRACTIONS = operator("fractions", lambda x: x + (x - x.square()).mean(0))
NUM_ROWS: list[int] = []


def counted(x: Tensor) -> Tensor:
    NUM_ROWS.append(len(x))
    return x.sin()


COUNTED = operator("counted", counted)


@torch.library.custom_op("dpgraph_custom::two", mutates_args=())
def two(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.sin(), x.cos()


@two.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


TWO = torch.ops.dpgraph_custom.two.default


@torch.library.custom_op("dpgraph_custom::picked", mutates_args=())
def picked(x: Tensor, ids: Tensor) -> Tensor:
    return x.gather(1, ids)


@picked.register_fake
def _(x: Tensor, ids: Tensor) -> Tensor:
    return torch.empty_like(ids, dtype=x.dtype)


PICKED = torch.ops.dpgraph_custom.picked.default


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    before, registered = dict(_TRANSFERS), set(REGISTERED)
    yield
    _TRANSFERS.clear()
    _TRANSFERS.update(before)
    REGISTERED.clear()
    REGISTERED.update(registered)


class Beside(nn.Module):
    """A layer whose outputs are multiplied with what an operator makes of the inputs."""

    def __init__(self, op) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.op(x)


def run(op, options=EAGER) -> None:
    dp_compile(Beside(op), "full", options=options)(torch.randn(5, 4))


@pytest.mark.parametrize(("op", "rule"), [(SINE, "pointwise"), (SINE, "leading"), (SCALED, "leading")])
def test_an_operator_is_accepted_once_it_has_a_rule(op, rule):
    with pytest.raises(UnsupportedProgramError, match="register_transfer"):
        run(op)
    register_transfer(op, rule)
    torch._dynamo.reset()
    check_exact(Beside(op).double(), torch.randn(5, 4, dtype=torch.float64), clipping="auto-v")


@pytest.mark.parametrize("op", [REVERSED, CENTRED])
@pytest.mark.parametrize("rule", ["pointwise", "leading"])
def test_a_rule_that_the_operator_contradicts_is_refused(op, rule):
    register_transfer(op, rule)
    with pytest.raises(UnsoundProgramError, match="experiment contradicts") as caught:
        run(op)
    assert "self.op(x)" in caught.value.place.line.code


def test_a_rule_may_be_a_function():
    def to_sum(step: Step) -> SummedOverSamples:
        assert step.of(step.args[0]) == PerSample(0)
        return SummedOverSamples(step.node)

    class Summed(nn.Module):
        def __init__(self, op) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.op = op

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.op(x)

    register_transfer(TOTAL, to_sum)
    dp_compile(Summed(TOTAL), "full", options=EAGER)(torch.randn(5, 4))
    # a sum over the samples must not come back into the graph
    with pytest.raises(UnsoundProgramError):
        run(TOTAL)
    register_transfer(SQUARED_TOTAL, to_sum)
    with pytest.raises(UnsoundProgramError, match="experiment contradicts"):
        run(SQUARED_TOTAL)


@pytest.mark.parametrize("claim", [Shared(), PerSample(0)], ids=["shared", "of each sample"])
def test_a_rule_that_forgets_the_samples_is_refused(claim):
    register_transfer(CENTRED, lambda step: claim)
    with pytest.raises(UnsoundProgramError, match="experiment contradicts"):
        run(CENTRED)


def test_values_between_whole_numbers_are_tried():
    register_transfer(FRACTIONS, "pointwise")
    with pytest.raises(UnsoundProgramError, match="experiment contradicts"):
        run(FRACTIONS)


def test_the_experiment_has_three_samples():
    register_transfer(COUNTED, "pointwise")
    run(COUNTED, CompileOptions(backend="eager", verify="never"))
    assert NUM_ROWS[:-1]
    assert set(NUM_ROWS[:-1]) == {3}


def test_all_results_of_an_operator_are_treated_alike():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            sine, cosine = TWO(x)
            return self.layer(x) * sine + cosine

    register_transfer(TWO, "leading")
    check_exact(Twice().double(), torch.randn(5, 4, dtype=torch.float64))


def test_an_operator_of_whole_numbers_is_tried():
    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            return self.layer(x) * PICKED(x, ids)

    register_transfer(PICKED, "leading")
    check_exact(Picking().double(), torch.randn(5, 4, dtype=torch.float64), torch.randint(4, (5, 4)))


def test_an_operator_that_cannot_be_tried_is_refused():
    register_transfer(PICKY, "pointwise")
    with pytest.raises(UnsupportedProgramError, match="could not be tried"):
        run(PICKY)


def test_what_cannot_be_registered():
    register_transfer(SINE, "pointwise")
    with pytest.raises(ArgumentError, match="already"):
        register_transfer(SINE, "leading")
    with pytest.raises(ArgumentError, match="already"):
        register_transfer(torch.ops.aten.mm.default, "leading")
    with pytest.raises(ArgumentError, match="already"):
        register_transfer(torch.ops.aten.sin.default, "pointwise")
    with pytest.raises(ArgumentError, match="family"):
        register_transfer(SCALED, "trailing")
    with pytest.raises(ArgumentError, match="overload"):
        register_transfer(torch.ops.dpgraph_custom.scaled_by_row, "leading")
