"""Rounding, random numbers, views, small and strange batches raise no alarm; what was left out is said."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, DPModule, Validation, dp_compile, plan
from dpgraph.validate.compare import Freedom, Precision, compare
from dpgraph.validate.draws import find_draws, match_draws

EAGER = CompileOptions(backend="eager")
FLOAT32 = Precision(torch.finfo(torch.float32).eps, torch.float32)


def validation(module: DPModule, *inputs: Tensor) -> Validation:
    """Of a first call, which must leave random state and gradients as the user's own step would."""
    total = sum(x.float().square().sum() for x in torch.utils._pytree.tree_leaves(module(*inputs)))
    total.backward()
    (found,) = module.validations
    return found


class Views(nn.Module):
    """Several views of one value, an input as it came, a written buffer and a random mask; samples on axis 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer("steps", torch.zeros(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.steps[0] += 1
        h = F.dropout(self.linear(x).sin(), 0.5)
        return {"h": h, "turned": h.transpose(0, 2), "part": h[..., :2], "x": x, "steps": self.steps}


def test_views_writes_and_dropout_with_samples_on_axis_1():
    module = dp_compile(Views(), "full", batch_dims=1, options=EAGER)
    x = torch.randn(5, 6, 3)
    outputs = module(x)
    found = module.validations[0]
    assert found.complete, str(found)
    assert found.num_samples == 2
    assert {"output 0", "the gradient of linear.weight", "the norms"} <= set(found.compared)
    assert sum(name.startswith("output") for name in found.compared) >= 4
    assert any("steps" in name for name in found.compared)
    assert module.steps[0] == 1
    (outputs["h"].sum() + outputs["turned"].square().sum()).backward()
    assert module.linear.weight.grad is not None


def test_every_batch_on_all_its_samples():
    module = dp_compile(nn.Linear(3, 2), "full", options=CompileOptions(backend="eager", verify="always"))
    for num_samples in (5, 7, 3):
        module(torch.randn(num_samples, 3)).sum().backward()
        assert module.validations[-1].num_samples == num_samples
    assert module.validations[0].num_batches == 3
    assert len(module.validations) == 1


def test_fixed_batches_are_compared_whole():
    module = dp_compile(nn.Linear(3, 2), "full", options=CompileOptions(backend="eager", batch="fixed"))
    assert validation(module, torch.randn(5, 3)).num_samples == 5


def test_batches_without_samples_or_without_a_finite_one_do_not_count():
    module = dp_compile(nn.Linear(3, 2), "full", options=EAGER)
    module(torch.randn(0, 3)).sum().backward()
    assert module.validations == ()
    module(torch.full((4, 3), torch.nan)).sum().backward()
    assert module.validations[0].num_batches == 1
    module(torch.randn(1, 3)).sum().backward()
    assert module.validations[0].num_batches == 2
    module(torch.randn(4, 3)).sum().backward()
    assert module.validations[0].num_batches == 2


def test_a_step_under_autocast_and_in_half_precision():
    module = dp_compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "full", options=EAGER)
    with torch.autocast("cpu", torch.bfloat16):
        found = validation(module, torch.randn(5, 3))
    assert found.complete
    assert found.tolerance == pytest.approx(0.0884, rel=1e-2)


def test_a_plan_runs_nothing():
    with torch.device("meta"):
        model, x = nn.Linear(10, 10), torch.empty(4, 10)
    assert plan(model, (x,), mode="full", options=EAGER).memory.parameters > 0


def test_an_unknown_choice_is_refused():
    with pytest.raises(ArgumentError, match="verify"):
        CompileOptions(verify="sometimes")


def differ(found: Tensor, expected: Tensor, *moved: Tensor) -> bool:
    """Whether a difference would be an alarm."""
    difference = compare({"x": found}, {"x": expected}, FLOAT32)["x"]
    freedom = Freedom(difference, found, expected)
    for x in moved:
        freedom.see(x)
    return difference.exceeds and not freedom.covers_difference


def test_what_moves_by_itself_is_rounding_and_nothing_else():
    x = torch.randn(100)
    assert not differ(x * (1 + 1e-6), x)
    assert differ(x * 1.01, x)
    assert differ(x * 1.01, x, x * (1 + 1e-6))
    assert not differ(x * 1.01, x, x * 0.99)


def test_what_is_not_finite_must_be_so_in_the_same_places():
    x = torch.randn(100)
    broken = x.clone()
    broken[3] = torch.nan
    assert differ(broken, x)
    assert differ(x, broken)
    assert not differ(broken, broken.nan_to_num(torch.inf, torch.inf))
    assert not differ(broken, x, broken)


def test_whole_numbers_and_missing_gradients_are_compared_exactly():
    x = torch.arange(100)
    assert not differ(x, x)
    assert differ(x + (x == 3), x)
    assert compare({"x": None}, {"x": None}, FLOAT32)["x"].exceeds is False
    assert compare({"x": None}, {"x": torch.ones(2)}, FLOAT32)["x"].exceeds
    assert differ(torch.ones(3), torch.ones(2))


def test_a_gradient_that_is_tiny_beside_another_is_as_exact_as_that():
    large, tiny = torch.ones(10), torch.full((10,), 1e-7)
    found, expected = {"large": large, "tiny": -tiny}, {"large": large, "tiny": tiny}
    assert not compare(found, expected, FLOAT32, together=("large", "tiny"))["tiny"].exceeds
    assert compare(found, expected, FLOAT32)["tiny"].exceeds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_what_is_a_tenth_of_the_largest_is_compared(dtype):
    precision = Precision(torch.finfo(dtype).eps, dtype)
    large, small = torch.ones(10), torch.full((10,), 0.1)
    expected = {"large": large, "small": small}
    found = compare({"large": large, "small": torch.zeros(10)}, expected, precision, together=("large", "small"))
    assert found["small"].exceeds
    assert not found["large"].exceeds


def test_random_operators_that_the_backend_replaced_are_left_out():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.linear(x)
            return h, h + torch.rand_like(h)

    module = dp_compile(Noisy(), "full", options=EAGER)
    assert validation(module, torch.randn(4, 3)).complete
    graph = module.rewriting.result
    assert match_draws(graph, find_draws(graph)).unmatched is None
    assert match_draws(graph, find_draws(graph)).in_order
    assert match_draws(graph, ()).unmatched is not None
    check = module._calls.compiler.checks[0]
    check._draws = match_draws(graph, None)
    check._tries_left, check.record = 1, None
    module(torch.randn(4, 3))
    (found,) = module.validations
    assert list(found.left_out) == ["output 1"]
    assert "output 1" not in found.compared
    assert {"output 0", "the norms"} <= set(found.compared)
    assert not found.complete
    assert "not compared: output 1, since" in str(found)


def test_attention_without_dropout_draws_nothing_that_could_excuse_a_difference():
    def attend(x: Tensor, p: float) -> Tensor:
        return F.scaled_dot_product_attention(F.scaled_dot_product_attention(x, x, x, dropout_p=p), x, x, dropout_p=p)

    x = torch.randn(2, 2, 4, 8)
    silent, dropping = (torch.fx.experimental.proxy_tensor.make_fx(attend)(x, p).graph for p in (0.0, 0.5))
    assert any("attention" in str(node.target) for node in silent.nodes)
    assert find_draws(silent) == ()
    assert match_draws(silent, ()).in_order
    assert len(find_draws(dropping)) == 2
