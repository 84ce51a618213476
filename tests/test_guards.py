"""One small program for each guard: what goes wrong without it. `tools/mutants.py` breaks the guards one by one."""

import math

import pytest
import torch
from torch import Tensor, nn

import dpgraph
from dpgraph import CompileOptions, dp_compile
from dpgraph.clipping import CLIPPING_FUNCTIONS
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import in_float64
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.rows import Rows
from tests.gradients.certify import assert_certified

EAGER = CompileOptions(backend="eager")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Program(nn.Module):
    """A linear layer 4 -> 4 inside whatever function of (layer, input) a test is about."""

    def __init__(self, function, **buffers: Tensor):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def private(model: nn.Module, mode="full", **arguments):
    return dp_compile(model, mode, options=EAGER, **arguments)


def per_sample(model: nn.Module, x: Tensor, weights: Tensor | None = None) -> list[list[Tensor]]:
    """Gradients of each sample alone, by a loop: [B] lists of one gradient a trained parameter."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for b in range(len(x)):
        loss = model(x[b : b + 1]).sum() * (1 if weights is None else weights[b])
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found.append([torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)])
    return found


def norms_of(samples: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)) for gradients in samples])


def clipped_sum(samples: list[list[Tensor]], factors: Tensor) -> list[Tensor]:
    weighted = [[w * g for g in gradients] for w, gradients in zip(factors.tolist(), samples, strict=True)]
    return [sum(column) for column in zip(*weighted, strict=True)]


def check_against_loop(model: nn.Module, x: Tensor, **arguments) -> None:
    """Norms and clipped sums of a sum loss, with R / n."""
    module = private(model, clipping="auto-v", **arguments)
    module(x).sum().backward()
    samples = per_sample(model, x)
    norms = norms_of(samples)
    torch.testing.assert_close(module.grad_norms.double(), norms, rtol=1e-4, atol=1e-6)
    for p, expected in zip(
        (p for p in model.parameters() if p.requires_grad), clipped_sum(samples, 1 / norms), strict=True
    ):
        torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-5)


def refuse(function, error=dpgraph.UnsoundProgramError, shape=(6, 4), **buffers: Tensor) -> dpgraph.DPGraphError:
    """The error that a program is refused with."""
    with pytest.raises(error) as caught:
        private(Program(function, **buffers))(torch.randn(shape))
    assert caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


# Norms


@pytest.mark.usefixtures("both_ghost_norms")
def test_positions_of_a_sample_meet_in_the_norm():
    check_against_loop(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(3, 7, 4))


@pytest.mark.usefixtures("both_ghost_norms")
def test_ghost_norm_has_the_terms_between_positions():
    form = Outer(torch.randn(2, 5, 3), torch.randn(2, 5, 4))
    assert_certified(form.norm_sq(), in_float64(form).materialise().square().sum((1, 2)))


@pytest.mark.usefixtures("both_ghost_norms")
@pytest.mark.parametrize("length", [128, 131])
def test_ghost_norm_of_a_long_sequence_counts_pairs_twice(length):
    u, v = torch.randn(2, length, 3, dtype=torch.float64), torch.randn(2, length, 4, dtype=torch.float64)
    form = Outer(u, v)
    assert_certified(form.norm_sq(), form.materialise().square().sum((1, 2)), rtol=1e-12)


def test_uses_of_a_tied_parameter_meet_in_the_norm():
    check_against_loop(Program(lambda m, x: m.layer(torch.tanh(m.layer(x)))), torch.randn(3, 4))


def test_rows_of_different_tokens_do_not_meet_in_the_norm():
    form = Rows(torch.tensor([[0, 1, 1], [2, 0, 1]]), torch.randn(2, 3, 4), 3)
    assert_certified(form.norm_sq(), in_float64(form).materialise().square().sum((1, 2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_are_added_up_in_float64(dtype):
    ones = torch.full((2, 3, 4), 300.0, dtype=dtype)
    index = torch.zeros(2, 3, dtype=torch.long)
    for form in (Dense(ones), Outer(ones, ones), Rows(index, ones, 2)):
        assert form.norm_sq().value.dtype == torch.float64
        assert form.norm_sq().value.isfinite().all()


def test_groups_have_norms_of_their_own():
    model = nn.Linear(4, 3)
    module = private(model, grouping="per-param", clipping="auto-v")
    x = torch.randn(5, 4)
    module(x).sum().backward()
    samples = per_sample(model, x)
    expected = torch.stack([norms_of([[g[i]] for g in samples]) for i in range(2)], dim=1)
    torch.testing.assert_close(module.grad_norms.double(), expected, rtol=1e-4, atol=1e-6)
    for i, p in enumerate(model.parameters()):
        clipped = clipped_sum([[g[i]] for g in samples], 1 / (math.sqrt(2) * expected[:, i]))[0]
        torch.testing.assert_close(p.grad, clipped, rtol=1e-4, atol=1e-5)


def test_the_row_of_padding_gets_nothing():
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Linear(4, 3))
    check_against_loop(model, torch.tensor([[0, 1, 2], [3, 0, 0]]))
    assert not model[0].weight.grad[0].any()


# Clip factors


@pytest.mark.parametrize("where", ["input", "loss"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("kind", ["linear", "embedding", "norm"])
@pytest.mark.parametrize("strategy", ["ghost", "materialise"])
def test_a_sample_that_is_not_finite_adds_nothing(kind, value, where, strategy):
    make = {
        "linear": lambda: nn.Sequential(nn.Linear(4, 3), nn.Identity()),
        "embedding": lambda: nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)),
        "norm": lambda: nn.Sequential(nn.Identity(), nn.LayerNorm(4)),
    }
    model = make[kind]()
    x = torch.randint(0, 5, (3, 2)) if kind == "embedding" else torch.randn(3, 2, 4)
    scale = torch.ones(3)
    if where == "input" and kind != "embedding":
        x[1, 0, 0] = value
    else:
        scale[1] = value
    module = dp_compile(model, "full", clipping="abadi", options=CompileOptions("eager", norm_strategy=strategy))
    (module(x).flatten(1).sum(1) * scale).sum().backward()
    finite = torch.tensor([0, 2])
    samples = per_sample(model, x[finite])
    expected = clipped_sum(samples, (1 / norms_of(samples)).clamp_max(1))
    assert module.num_nonfinite == 1
    for p, g in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-5)


def test_a_sample_that_is_not_finite_in_one_group_is_counted_once():
    module = private(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), grouping="per-param")
    x = torch.randn(3, 4)
    x[0, 0] = math.inf
    module(x).sum().backward()
    assert module.grad_norms.isfinite().any(1).tolist() == [True, True, True]
    assert module.num_nonfinite == 1


@pytest.mark.parametrize("name", CLIPPING_FUNCTIONS)
def test_clipping_functions_keep_their_bound_from_nothing_to_the_largest_norm(name):
    function = CLIPPING_FUNCTIONS[name]
    for dtype in (torch.float32, torch.float64):
        info = torch.finfo(dtype)
        sizes = [0, info.smallest_normal / 2, info.smallest_normal, 1e-3, 1, 1e3, info.max]
        norms = torch.tensor(sizes, dtype=dtype)[:, None]
        for bound in (1e-3, 1.0, 1e3):
            factors = function.factor(norms, torch.full_like(norms, bound))
            assert factors.isfinite().all()
            assert (factors >= 0).all()
            assert (norms * factors <= function.bound(bound) * (1 + 1e-6)).all()
    none, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert CLIPPING_FUNCTIONS["auto-v"].factor(none, one).item() == 0
    assert CLIPPING_FUNCTIONS["auto-s"].factor(none, one).item() == pytest.approx(100)
    assert CLIPPING_FUNCTIONS["abadi"].factor(one / 2, one).item() == 1


def test_auto_v_does_not_blow_up_rounding_noise():
    norms = torch.tensor([[3.0, 1e-8, 1e-4], [math.inf, 2.0, 1e-9], [0.0, 0.0, 0.0]])
    factors = CLIPPING_FUNCTIONS["auto-v"].factor(norms, torch.ones_like(norms))
    assert (factors > 0).tolist() == [[True, False, True], [False, True, False], [False, False, False]]
    assert factors[0, 2].item() == pytest.approx(1e4)


def test_groups_share_the_bound():
    module = private(nn.Linear(4, 3), grouping="per-param", clipping="auto-v", max_grad_norm=2.0)
    module(torch.randn(1, 4)).sum().backward()
    total = math.sqrt(sum(p.grad.square().sum().item() for p in module.parameters()))
    assert 2.0 <= module.sensitivity <= 2.0 * 1.018
    assert total == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("num_samples", [0, 1])
def test_rows_that_fill_up_a_small_batch_add_nothing(num_samples):
    model = nn.Linear(4, 3)
    module = private(model, clipping="auto-v")
    x = torch.randn(num_samples, 4)
    outputs = module(x)
    assert outputs.shape == (num_samples, 3)
    outputs.sum().backward()
    samples = per_sample(model, x)
    assert module.grad_norms.shape == (num_samples,)
    assert module.num_nonfinite == 0
    if num_samples:
        for p, g in zip(model.parameters(), clipped_sum(samples, 1 / norms_of(samples)), strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-5)
    else:
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_rows_that_fill_up_a_small_batch_do_not_count_where_the_model_sums():
    model = Program(lambda m, x: ((x + 1) @ m.layer.weight.T).sum())
    module = private(model, clipping="auto-v")
    x = torch.randn(1, 4)
    module(x).backward()
    assert module.grad_norms.shape == (1,)
    samples = [[g for g in per_sample(model, x)[0] if g.any()]]
    (expected,) = clipped_sum(samples, 1 / norms_of(samples))
    torch.testing.assert_close(model.layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_mean_over_a_batch_of_one_is_that_of_its_sample():
    model = Program(lambda m, x: (x @ m.layer.weight.T).square().mean())
    module = private(model, clipping="abadi", max_grad_norm=100.0, loss_reduction="mean")
    x = torch.randn(1, 4)
    mean = module(x)
    torch.testing.assert_close(mean, model(x))
    mean.backward()
    (expected,) = torch.autograd.grad(model(x), [model.layer.weight])
    torch.testing.assert_close(model.layer.weight.grad, expected)


def test_a_mean_over_the_batch_is_undone_before_clipping():
    model = nn.Linear(4, 3)
    x = torch.randn(5, 4)
    module = private(model, loss_reduction="mean", clipping="abadi", max_grad_norm=3.0)
    module(x).sum(1).mean().backward()
    samples = per_sample(model, x)
    torch.testing.assert_close(module.grad_norms.double(), norms_of(samples), rtol=1e-4, atol=1e-6)
    for p, g in zip(model.parameters(), clipped_sum(samples, (3 / norms_of(samples)).clamp_max(1)), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-5)


def test_a_loss_is_one_number_for_each_sample():
    module = private(nn.Linear(4, 3), loss_fn=lambda y: y)
    with pytest.raises(dpgraph.ArgumentError, match="loss_fn"):
        module(torch.randn(5, 4))


# What is trained


def test_only_what_is_trained_is_computed():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    module = private(model, "bitfit")
    module(torch.randn(5, 4)).sum().backward()
    assert [p.grad is not None for p in model.parameters()] == [False, True, False, True]
    products = {name: sum("mm" in str(node.target) for node in g.nodes) for name, g in module.graphs.items()}
    assert products["prune"] < products["captured"]
    outputs = module.graphs["prune"].output_node().args[0]
    assert sum(node is None for node in outputs) >= 2


def test_parameters_that_share_storage_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    with pytest.raises(dpgraph.ArgumentError, match=r"0\.weight.*1\.weight"):
        private(model)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(dpgraph.ArgumentError, match="head"):
        private(nn.Linear(4, 3), "bitfit", also_train="head.*")


def test_a_mode_that_trains_nothing_is_refused():
    with pytest.raises(dpgraph.ArgumentError, match="trains no parameter"):
        private(nn.Linear(4, 3, bias=False), "bitfit")


@pytest.mark.parametrize("value", [math.inf, math.nan, 0.0, -1.0, "1"])
def test_a_threshold_that_bounds_nothing_is_refused(value):
    with pytest.raises(dpgraph.ArgumentError, match="max_grad_norm"):
        private(nn.Linear(4, 3), max_grad_norm=value)


@pytest.mark.parametrize("grouping", [{"a": "weight"}, {"a": "*", "b": "bias"}])
def test_a_parameter_belongs_to_exactly_one_group(grouping):
    with pytest.raises(dpgraph.ArgumentError, match="group"):
        private(nn.Linear(4, 3), grouping=grouping)


def test_a_parameter_that_is_unfrozen_later_is_refused():
    module = private(nn.Linear(4, 3), "bitfit")
    module(torch.randn(2, 4)).sum().backward()
    module.weight.requires_grad_(True)
    with pytest.raises(dpgraph.ArgumentError, match="weight"):
        module(torch.randn(2, 4))


def test_a_refused_model_is_as_it_was():
    model = Program(lambda m, x: m.layer(x).softmax(0))
    model.layer.register_parameter("bias", None)
    model.layer.weight.requires_grad_(False)
    with pytest.raises(dpgraph.UnsoundProgramError):
        dp_compile(model, "bitfit", add_biases=True, options=EAGER)(torch.randn(6, 4))
    assert model.layer.bias is None
    assert not model.layer.weight.requires_grad


def test_inputs_agree_on_the_number_of_samples():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.layer(x) + table.sum()

    with pytest.raises(dpgraph.ArgumentError, match="number of samples"):
        private(Two())(torch.randn(5, 4), torch.randn(3, 2))


def test_a_graph_break_is_named():
    def function(m: Program, x: Tensor) -> Tensor:
        return m.layer(x) if x.sum() > 0 else x

    error = refuse(function, dpgraph.CaptureError)
    assert error.place.line is not None
    assert "x.sum() > 0" in error.place.line.code


# Soundness. Each program leaves the gradient path alone where it can, so that one guard decides.


def test_softmax_over_the_batch_is_refused():
    refuse(lambda m, x: m.layer(x) * x.softmax(0))


def test_the_largest_of_the_batch_is_refused():
    refuse(lambda m, x: m.layer(x) * x.amax(0))


def test_a_running_sum_over_the_batch_is_refused():
    refuse(lambda m, x: m.layer(x) * x.cumsum(0))


def test_the_order_of_the_batch_is_kept():
    refuse(lambda m, x: m.layer(x) * x.flip(0))


def test_values_of_different_samples_are_not_paired():
    refuse(lambda m, x: m.layer(x) * (x[:, None] - x[None]).square().sum((1, 2))[:, None])


def test_values_of_different_samples_are_not_paired_in_a_merged_axis():
    def function(m: Program, x: Tensor) -> Tensor:
        by_turns = x.repeat(2, 1)
        side_by_side = x[:, None].expand(-1, 2, -1).reshape(-1, 4)
        return m.layer(x) * (side_by_side * by_turns).view(2, -1, 4).sum(0)

    refuse(function)


def test_samples_are_not_multiplied_with_one_another():
    refuse(lambda m, x: m.layer(x) * (x @ x.T).square().sum(1, keepdim=True))


def test_attention_does_not_run_along_the_batch():
    def function(m: Program, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)[None]
        y = nn.functional.scaled_dot_product_attention(y, y, y)
        return m.layer(x) * y[0].transpose(0, 1)

    refuse(function, shape=(6, 3, 4))


def test_pooling_of_one_image_does_not_run_along_the_batch():
    def function(m: Program, x: Tensor) -> Tensor:
        rows_of_samples = m.layer(x).transpose(0, 1)
        return nn.functional.avg_pool2d(rows_of_samples, 3, 1, 1).transpose(0, 1)

    refuse(function, shape=(6, 3, 4))


def test_distances_between_samples_are_refused():
    refuse(lambda m, x: torch.cdist(m.layer(x), x))


def test_a_sum_over_the_batch_does_not_come_back():
    refuse(lambda m, x: x @ m.layer.weight.T + x.sum(0))


def test_a_sum_over_the_batch_does_not_come_back_as_a_number():
    error = refuse(lambda m, x: m.layer(x) * x.sum().item(), dpgraph.DPGraphError)
    assert error.place.line is not None


def test_samples_are_not_picked_out_of_the_batch():
    refuse(lambda m, x: m.layer(x) + x[(x[:, 0] > 0).long()])


def test_gather_does_not_run_along_the_batch():
    refuse(lambda m, x: m.layer(x) + x.gather(0, (x > 0).long()))


def test_a_part_of_the_batch_is_not_moved():
    refuse(lambda m, x: m.layer(x) * torch.cat([x[1:], x[:1]]))


def test_one_sample_is_not_shown_to_all():
    refuse(lambda m, x: m.layer(x) * x[:1])


def test_the_position_in_the_batch_is_not_data():
    refuse(lambda m, x: m.layer(x) * torch.arange(len(x))[:, None])


def test_the_position_in_the_batch_is_no_index_of_a_table():
    refuse(lambda m, x: m.layer(x) + m.table[torch.arange(len(x))], table=torch.randn(64, 4))


def test_positions_in_the_batch_are_not_padded():
    refuse(lambda m, x: m.layer(x)[nn.functional.pad(torch.arange(len(x))[:, None], (0, 1))].flatten(1))


def test_offsets_stay_in_the_rows_of_their_sample():
    model = Program(lambda m, x: m.layer(x).flatten(0, 1)[torch.arange(len(x)) * 3 + 3].square())
    module = private(model)
    x = torch.randn(5, 3, 4)

    def gradient(x):
        model.zero_grad()
        module(x).sum().backward()
        return model.layer.weight.grad.clone()

    torch.testing.assert_close(gradient(x), sum(gradient(x[b : b + 1]) for b in range(5)))


def test_a_block_of_the_batch_is_not_shifted():
    refuse(lambda m, x: m.layer(torch.cat([x, x]))[1 : 1 + len(x)])


def test_the_number_of_samples_is_not_data():
    refuse(lambda m, x: m.layer(x) / x.shape[0])


def test_the_number_of_samples_is_not_added():
    refuse(lambda m, x: torch.tanh(m.layer(x) + x.shape[0]))


def test_the_number_of_samples_is_no_index():
    refuse(lambda m, x: m.layer(x) * x.select(1, len(x) % 4)[:, None])


def test_the_number_of_samples_is_no_axis():
    refuse(lambda m, x: m.layer(x) * x[None].expand(len(x), *x.shape).sum(0))


def test_the_program_does_not_branch_on_the_number_of_samples():
    error = refuse(lambda m, x: m.layer(x) if len(x) > 4 else 2 * m.layer(x))
    assert "len(x) > 4" in error.place.line.code


def test_the_number_of_samples_is_not_fixed():
    error = refuse(lambda m, x: m.layer(x) + x[torch.tensor([1, 0, 3, 2, 5, 4])])
    assert error.place.line is not None


def test_a_mean_over_the_batch_is_declared():
    refuse(lambda m, x: m.layer(x).square().sum(1).mean())


def test_the_batch_is_not_padded():
    # as long as before, and every sample in the next one's place
    refuse(lambda m, x: m.layer(x) * nn.functional.pad(x, (0, 0, 1, -1)))


def test_the_batch_is_not_reshaped_into_positions():
    def function(m: Program, x: Tensor) -> Tensor:
        moved = x.transpose(0, 1).reshape(x.shape[0], -1)
        return m.layer(x).sum((1, 2)) * moved.amax(1)

    refuse(function, shape=(6, 3, 4))


def test_samples_are_not_written_to_rows_that_they_share():
    def function(m: Program, x: Tensor) -> Tensor:
        rows = torch.zeros(3, 4).index_put(((x[:, 0] > 0).long(),), x, accumulate=True)
        return m.layer(x) * rows.tanh().sum()

    refuse(function)


def test_a_kernel_that_depends_on_the_samples_is_refused():
    refuse(lambda m, x: m.layer(x) * nn.functional.conv1d(x[:, None], x.sum(0).view(1, 1, 4))[:, 0])


def test_counts_over_the_batch_do_not_scale_a_gradient():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 4, scale_grad_by_freq=True)

        def forward(self, index: Tensor) -> Tensor:
            return self.table(index)

    with pytest.raises(dpgraph.UnsoundProgramError):
        private(Counting())(torch.randint(0, 5, (6, 3)))


def test_a_buffer_does_not_remember_samples():
    def function(m: Program, x: Tensor) -> Tensor:
        m.seen.add_(x.detach().sum(0))
        return m.layer(x)

    refuse(function, seen=torch.zeros(4))


def test_an_output_that_no_sample_owns_is_refused():
    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.layer.weight.square().sum()

    with pytest.raises(dpgraph.UnsoundProgramError):
        private(Penalised())(torch.randn(6, 4))


@torch.library.custom_op("dpgraph_guards::unheard_of", mutates_args=())
def unheard_of(x: Tensor) -> Tensor:
    """An op that no rule was written for."""
    return x.flip(0)


@unheard_of.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_op_that_nobody_knows_is_refused():
    error = refuse(lambda m, x: m.layer(x) * unheard_of(x), dpgraph.UnsupportedProgramError)
    assert "unheard_of" in str(error)
