"""Buffers that the forward writes: exact over several steps if the values are public, refused if they are samples'."""

import copy

import pytest
import torch
from torch import nn

from dpgraph import CompileOptions, dp_compile
from dpgraph.errors import UnsoundProgramError, UnsupportedProgramError
from tests.oracle import per_sample_gradients
from tests.oracle.comparison import relative_errors

BOTH = ["eager", pytest.param("inductor", marks=pytest.mark.inductor)]
B, D = 4, 3


class Writing(nn.Module):
    """Programs with a weight, a buffer [D], a counter and a table each."""

    def __init__(self, *programs):
        super().__init__()
        self.programs = programs
        self.parts = nn.ModuleList(nn.Module() for _ in programs)
        for part in self.parts:
            part.w = nn.Parameter(torch.linspace(0.5, 1.5, D, dtype=torch.float64))
            part.register_buffer("ema", torch.linspace(1, 2, D, dtype=torch.float64))
            part.register_buffer("step", torch.zeros((), dtype=torch.float64))
            part.register_buffer("count", torch.zeros((), dtype=torch.int64))
            part.register_buffer("table", torch.ones(4, D, dtype=torch.float64))

    def forward(self, x):
        return torch.stack([f(part, x) for f, part in zip(self.programs, self.parts, strict=True)], 1)


def one_place(s, x):
    s.ema[0] = 3.0
    return (x * s.w * s.ema).sin()


def warm_up(s, x):
    s.step += 1
    return (x * s.w * (s.step / 10).clamp(max=1)).sin()


def counter(s, x):
    s.count.add_(1)
    return (x * s.w).sin() / s.count


def read_before(s, x):
    y = x * s.w * (s.ema * 2)
    s.ema.add_(1)
    return y.sin() * s.ema


def read_before_and_after(s, x):
    before = s.step * 2 + 1
    s.step += 1
    return (x * s.w * before).sin() * (s.step * s.w)


def average_of_weights(s, x):
    with torch.no_grad():
        s.ema.mul_(0.9).add_(0.1 * s.w)
    return (x * s.w - s.ema).square()


def power_iteration(s, x):
    with torch.no_grad():
        s.ema.copy_(torch.nn.functional.normalize(s.w * s.ema, dim=0))
    return x * s.w / (s.w * s.ema).sum()


def row_by_counter(s, x):
    s.table.index_copy_(0, (s.count % 4).unsqueeze(0), (s.ema * 0.5).unsqueeze(0))
    s.count += 1
    return (x * s.w * s.table.sum(0)).cos()


def rows_by_index(s, x):
    s.table.index_add_(0, torch.tensor([1, 3]), torch.full((2, D), 0.25, dtype=torch.float64))
    return (x @ s.table.t()[:, :D] * s.w).cos()


def column(s, x):
    s.table[:, 1] = s.table[:, 0] + 1
    return (x * s.w * s.table[2]).cos()


def shifted(s, x):
    s.table.copy_(s.table.roll(1, 0) * 1.5)
    return (x * s.w * s.table[0]).cos()


def whole(s, x):
    s.ema.fill_(2.0)
    return (x * s.w * s.ema).sin()


def read_by_the_backward_alone(s, x):
    y = Scaled.apply(x * s.w, s.ema * 1.5)
    s.ema.mul_(0.5)
    return y


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(scale)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        (scale,) = ctx.saved_tensors
        return g * scale, None


PUBLIC = (
    one_place,
    warm_up,
    counter,
    read_before,
    read_before_and_after,
    average_of_weights,
    power_iteration,
    row_by_counter,
    rows_by_index,
    column,
    shifted,
    whole,
    read_by_the_backward_alone,
)


def check_steps(model, backend, num_steps=3):
    """Each step's gradients against the loop, in which every sample meets the buffers as the batch met them."""
    module = dp_compile(model, "full", clipping="abadi", options=CompileOptions(backend=backend))
    for _ in range(num_steps):
        x = torch.randn(B, D, dtype=torch.float64)
        before = copy.deepcopy(model)
        state = copy.deepcopy(model.state_dict())
        for p in model.parameters():
            p.grad = None
        module(x).square().sum().backward()
        samples = per_sample_gradients(before, lambda twin, b, x=x, s=state: loss(twin, s, x, b), B)
        expected = samples.clipped_sum({"all": list(samples.shapes)}, "abadi", 1.0)
        errors = relative_errors({name: p.grad for name, p in model.named_parameters()}, expected)
        assert max(errors.values()) < 1e-12, errors
        before(x)
        for name, buffer in before.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], buffer, rtol=1e-13, atol=0, msg=name)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad


def loss(twin, state, x, b):
    twin.load_state_dict(state)
    return twin(x[b : b + 1]).square().sum()


@pytest.mark.parametrize("program", PUBLIC, ids=lambda f: f.__name__)
def test_public_values_are_exact(program):
    check_steps(Writing(program), "eager")


@pytest.mark.inductor
def test_public_values_are_exact_through_inductor():
    check_steps(Writing(*PUBLIC), "inductor")


def a_trained_weight(s, x):
    with torch.no_grad():
        s.w.clamp_(max=1.2)
    return (x * s.w).sin()


def last_mean(s, x):
    before = s.ema.clone()
    s.ema.copy_(x.detach().mean(0))
    return ((x - before) * s.w).sin()


def moving_sum(s, x):
    with torch.no_grad():
        s.ema.mul_(0.9).add_(x.sum(0))
    return x * s.w * s.ema


def moving_sum_of_outputs(s, x):
    y = (x * s.w).sin()
    s.ema.lerp_(y.detach().sum(0), 0.1)
    return y


def the_batch_itself(s, x):
    x.mul_(2)
    return x * s.w


def a_view_of_the_batch(s, x):
    x[:, 0] = 0
    return x * s.w


def one_sample(s, x):
    s.table[0] = x[0]
    return x * s.w


def rows_of_samples(s, x):
    s.table.index_add_(0, torch.zeros(x.shape[0], dtype=torch.long), x)
    return x * s.w


def by_ids_of_samples(s, x):
    s.table[x[:, 0].long() % 4] = 1.0
    return x * s.w


def number_of_samples(s, x):
    s.count += x.shape[0]
    return x * s.w


def largest(s, x):
    torch.maximum(s.ema, x.amax(0), out=s.ema)
    return x * s.w


def through_a_weight(s, x):
    with torch.no_grad():
        s.w.add_(x.sum(0))
    return x * s.w


def through_data(s, x):
    s.ema.data.add_(x.sum(0))
    return x * s.w


OF_SAMPLES = (
    last_mean,
    moving_sum,
    moving_sum_of_outputs,
    the_batch_itself,
    a_view_of_the_batch,
    one_sample,
    rows_of_samples,
    by_ids_of_samples,
    number_of_samples,
    largest,
    through_a_weight,
    through_data,
)


@pytest.mark.parametrize("backend", BOTH)
def test_a_trained_weight_is_not_written(backend):
    model = Writing(a_trained_weight)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnsupportedProgramError, match=r"into the parameter 'parts\.0\.w'"):
        dp_compile(model, "full", options=CompileOptions(backend=backend))(torch.randn(B, D, dtype=torch.float64))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("program", OF_SAMPLES, ids=lambda f: f.__name__)
def test_values_of_samples_are_refused(program, backend):
    model = Writing(program)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(B, D, dtype=torch.float64)
    with pytest.raises(UnsoundProgramError):
        dp_compile(model, "full", options=CompileOptions(backend=backend))(x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
