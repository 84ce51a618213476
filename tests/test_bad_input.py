"""What cannot be made private is refused by an error of ours with its four parts, and leaves the model as it was."""

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

from dpgraph import (
    ArgumentError,
    CaptureError,
    CompileOptions,
    DPGraphError,
    UnsoundProgramError,
    UnsupportedProgramError,
    dp_compile,
)
from tests.programs.exact import EAGER, check_exact


@torch.library.custom_op("dpgraph_tests::unheard_of", mutates_args=())
def unheard_of(x: Tensor) -> Tensor:
    """An op that no transfer rule was written for."""
    return x.sin()


@unheard_of.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))


class Run(nn.Module):
    """A trained layer 4 -> 4 and a frozen parameter; `function(self, x)` is the forward."""

    def __init__(self, function) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def snapshot(model: nn.Module) -> dict[str, tuple[int, bool, Tensor, bool]]:
    return {
        name: (id(p), p.requires_grad, p.detach().clone(), p.grad is None)
        for name, p in model.named_parameters(remove_duplicate=False)
    }


def refused(
    model: nn.Module, error: type[DPGraphError], *args: Tensor, mode: str = "full", **arguments
) -> DPGraphError:
    """The error; checks its four parts and that the model is as it was."""
    before, training = snapshot(model), model.training
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    forward = model.forward
    with pytest.raises(error) as caught:
        dp_compile(model, mode, **{"options": EAGER, **arguments})(*args)
    assert type(caught.value) is error
    for part in (caught.value.what, caught.value.why, caught.value.fix):
        assert part
        assert part.strip() in str(caught.value)
    after = snapshot(model)
    assert list(after) == list(before)
    for name, (identity, flag, value, empty) in before.items():
        assert after[name][:2] == (identity, flag), name
        torch.testing.assert_close(after[name][2], value, rtol=0, atol=0)
        assert after[name][3] == empty
    for name, b in model.named_buffers():
        torch.testing.assert_close(b, buffers[name], rtol=0, atol=0)
    assert model.training == training
    assert model.forward == forward
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    return caught.value


def check_line(error: DPGraphError, function) -> None:
    """The error names the line of `function` that bears the comment `# here`."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = (i for i, line in enumerate(lines) if "# here" in line)
    line = error.place.line
    assert line is not None, str(error)
    assert line.filename == inspect.getsourcefile(function)
    assert line.lineno == first + offset, str(error)


X = torch.randn(6, 4)


# Programs


def test_a_graph_break():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        if h.sum().item() > 0:  # here
            h = h + 1
        return h

    error = refused(Run(program), CaptureError, X)
    check_line(error, program)
    assert "fullgraph" in error.fix


def test_a_branch_on_data():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h if h.sum() > 0 else -h  # here

    check_line(refused(Run(program), CaptureError, X), program)


def test_printing():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        print(h.mean())  # here
        return h

    check_line(refused(Run(program), CaptureError, X), program)


def test_shapes_that_depend_on_data():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h[h > 0]  # here

    # how many elements of the other samples are kept decides where a sample's own end up: a sum would not mind
    check_line(refused(Run(program), UnsupportedProgramError, X), program)


def test_numpy():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h + torch.from_numpy(x.detach().numpy()).flip(0)  # here

    check_line(refused(Run(program), UnsoundProgramError, X), program)


def test_a_program_that_mixes_samples():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h - h.mean(0)  # here

    error = refused(Run(program), UnsoundProgramError, X)
    check_line(error, program)
    assert "mean" in error.place.op
    assert error.place.parameter in {"layer.weight", "layer.bias"}


def test_the_module_is_named():
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)

    model = nn.Sequential(nn.Linear(4, 4), Inner())
    assert refused(model, UnsoundProgramError, X).place.module == "1.norm"


def test_an_op_that_nobody_knows():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h * unheard_of(x)  # here

    error = refused(Run(program), UnsupportedProgramError, X)
    check_line(error, program)
    assert "unheard_of" in str(error)


def test_an_unknown_op_beside_the_gradient_is_no_matter():
    def program(m: Run, x: Tensor) -> Tensor:
        return m.layer(x) * m.frozen

    check_exact(Run(program).double(), X.double(), mode="bitfit", clipping="auto-v")


def test_a_permutation_of_fixed_length():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h * h[torch.tensor([1, 0, 3, 2, 5, 4])]  # here

    check_line(refused(Run(program), UnsoundProgramError, X), program)


def test_a_reshape_that_moves_samples_into_positions():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h.view(2, 3, 4).softmax(0).view(6, 4)  # here

    check_line(refused(Run(program), UnsoundProgramError, X), program)


def test_a_batch_size_written_as_a_number():
    def program(m: Run, x: Tensor) -> Tensor:
        h = m.layer(x)
        return h + torch.randn(6, 4)  # here

    check_line(refused(Run(program), UnsoundProgramError, X), program)


def test_a_loop_over_the_samples():
    def program(m: Run, x: Tensor) -> Tensor:
        return torch.stack([m.layer(row) for row in x])  # here

    check_line(refused(Run(program), UnsoundProgramError, X), program)


def test_an_exception_of_the_model_comes_out():
    def program(m: Run, x: Tensor) -> Tensor:
        return m.layer(x) @ torch.ones(7, 7)

    model = Run(program)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises((DPGraphError, RuntimeError), match=r"shape|size|mat") as caught:
        dp_compile(model, "bitfit", options=EAGER)(X)
    assert "requires_grad" not in getattr(caught.value, "fix", "")
    assert [p.requires_grad for p in model.parameters()] == flags


# Arguments


@pytest.mark.parametrize("mode", ["ful", "", None, 3, "FULL"])
def test_an_unknown_mode(mode):
    error = refused(small(), ArgumentError, X, mode=mode)
    assert repr(mode) in error.what
    assert all(known in error.fix for known in ("full", "bitfit", "trainable"))


@pytest.mark.parametrize("clipping", ["auto", None, 1.0, object()])
def test_an_unknown_clipping_function(clipping):
    error = refused(small(), ArgumentError, X, clipping=clipping)
    assert all(known in error.fix for known in ("auto-s", "auto-v", "abadi"))


@pytest.mark.parametrize("grouping", ["layer", 3, None, {}, {"a": "0.*"}, {"a": "*", "b": "0.weight"}])
def test_a_grouping_that_leaves_a_parameter_in_no_group_or_in_two(grouping):
    refused(small(), ArgumentError, X, grouping=grouping)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, 0.0, -1.0, "1", None])
def test_a_threshold_that_is_no_bound(value):
    error = refused(small(), ArgumentError, X, max_grad_norm=value)
    assert "max_grad_norm" in error.what


@pytest.mark.parametrize("reduction", ["none", "avg", None])
def test_an_unknown_reduction(reduction):
    refused(small(), ArgumentError, X, loss_reduction=reduction)


def test_a_mode_that_trains_nothing():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False))
    error = refused(model, ArgumentError, X, mode="bitfit")
    assert "add_biases" in error.fix


def test_trainable_with_everything_frozen():
    refused(small().requires_grad_(False), ArgumentError, X, mode="trainable")


def test_a_model_without_parameters():
    refused(nn.Sequential(nn.Tanh()), ArgumentError, X)


def test_a_pattern_that_matches_nothing():
    error = refused(small(), ArgumentError, X, mode="bitfit", also_train=["classifier.*"])
    assert "classifier.*" in error.what


def test_added_biases_are_taken_back_after_an_error():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    refused(model, UnsoundProgramError, X, mode="bitfit", add_biases=True)
    assert model[0].bias is None
    refused(model, ArgumentError, X, mode="bitfit", add_biases=True, max_grad_norm=-1)
    assert model[0].bias is None


def test_a_trained_parameter_that_shares_storage_with_a_frozen_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.detach(), requires_grad=False)
    error = refused(model, ArgumentError, X, mode="trainable")
    assert "0.weight" in error.what
    assert "1.weight" in error.what


def test_a_parameter_that_is_a_view_of_another():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = nn.Parameter(model[0].weight.detach()[2:], requires_grad=False)
    refused(model, ArgumentError, X, mode="trainable")


@pytest.mark.parametrize(
    ("args", "batch_dims"),
    [
        ((torch.randn(6, 4), torch.randn(5, 4)), None),
        ((torch.randn(6, 4), torch.randn(6, 4)), 2),
        ((torch.randn(6, 4), torch.randn(6, 4)), {"z": 0}),
        ((torch.randn(6, 4), torch.randn(6, 4)), {"x": None, "y": None}),
        ((torch.randn(6, 4), torch.randn(6, 4)), {"x": 0, "y": 1}),
        ((torch.tensor(1.0), torch.tensor(1.0)), None),
        ((1.0, 2.0), None),
    ],
)
def test_a_batch_that_cannot_be_told(args, batch_dims):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.layer(x) * y

    error = refused(Two(), ArgumentError, *args, batch_dims=batch_dims)
    assert "batch" in str(error)


@pytest.mark.parametrize("batch_dims", ["x", 1.5, [0, 1]])
def test_batch_dims_of_another_type(batch_dims):
    refused(small(), ArgumentError, X, batch_dims=batch_dims)


@pytest.mark.parametrize(
    "fields",
    [
        {"backend": "aot"},
        {"norm_strategy": "fast"},
        {"memory_budget": math.nan},
        {"memory_budget": -0.1},
        {"memory_budget": 1.1},
    ],
)
def test_options_that_are_not_listed(fields):
    with pytest.raises(ArgumentError) as caught:
        CompileOptions(**fields)
    assert next(iter(fields)) in caught.value.what


@pytest.mark.parametrize("model", [None, "model", torch.randn(3), lambda x: x])
def test_what_is_no_module(model):
    with pytest.raises(ArgumentError):
        dp_compile(model, "full", options=EAGER)


def test_example_inputs_bring_the_error_out_of_dp_compile():
    def program(m: Run, x: Tensor) -> Tensor:
        return m.layer(x).softmax(0)  # here

    model = Run(program)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "bitfit", example_inputs=(X,), options=EAGER)
    check_line(caught.value, program)
    assert [p.requires_grad for p in model.parameters()] == flags


def test_a_loss_that_mixes_samples():
    def loss(y: Tensor, target: Tensor) -> Tensor:
        weights = y.sum(1).softmax(0)  # here
        return (y - target).square().sum(1) * weights

    model = small()
    flags = [p.requires_grad for p in model.parameters()]
    module = dp_compile(model, "full", loss_fn=loss, options=EAGER)
    with pytest.raises(UnsoundProgramError) as caught:
        module(X, targets=(torch.randn(6, 3),))
    check_line(caught.value, loss)
    assert [p.requires_grad for p in model.parameters()] == flags


@pytest.mark.parametrize("shape", ["scalar", "wide"])
def test_a_loss_that_is_not_one_number_a_sample(shape):
    def loss(y: Tensor, target: Tensor) -> Tensor:
        squared = (y - target).square()
        return squared.sum() if shape == "scalar" else squared

    module = dp_compile(small(), "full", loss_fn=loss, options=EAGER)
    with pytest.raises(DPGraphError) as caught:
        module(X, targets=(torch.randn(6, 3),))
    assert "loss" in str(caught.value)


def test_every_error_is_an_error_of_dpgraph():
    for error in (ArgumentError, CaptureError, UnsoundProgramError, UnsupportedProgramError):
        assert issubclass(error, DPGraphError)
    assert issubclass(ArgumentError, ValueError)


def test_a_refused_model_can_be_compiled_after_the_repair():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
    refused(model, UnsoundProgramError, X.double())
    model[1] = nn.LayerNorm(4).double()
    check_exact(model, X.double(), clipping="auto-v")
