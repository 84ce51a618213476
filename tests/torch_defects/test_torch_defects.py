"""What torch itself compiles wrongly, as far as it was met here: the smallest case of each, without dpgraph.

Each is expected to fail. One that passes says that this version of torch has mended it, and then what dpgraph does
about it (named in the reason) is no longer needed from that version on. All were seen with torch 2.13 on CPU.
"""

import copy

import pytest
import torch
import torch._functorch.config
import torch.nn.functional as F
from torch import nn

ROWS = torch.tensor([1, 2])
IN_PLACE = "fx_passes/reinplace.py writes in place into elements that share memory: passes/copy_bases_of_writes.py"
KEPT = "a write into a buffer is kept in the graph: torch_compat/compile_fx.py"
OVERWRITTEN = "what was computed from a buffer is computed again after its write: passes/copy_written_inputs.py"
GIVEN_AWAY = "the backward writes into an output that is saved as a view of a copy: torch_compat/aliases.py"
DROPPED = "a write of a float64 number that nothing reads is dropped: torch_compat/capture_env.py"
DRAWN = "the partitioner may drop what is drawn at random: torch_compat/drawn_once.py"


def spread(x):
    return (x * 2).unsqueeze(1).expand(-1, 4, -1)


def fill(x):
    return spread(x).index_fill(1, ROWS, 0.5)


def fill_after_a_sum_with_zeros(x):
    return (spread(x) + torch.zeros(4, 3)).index_fill(1, ROWS, 0.5)


def fill_windows(x):
    return (x * 2).unfold(1, 2, 1).index_fill(2, ROWS[:1], 0.5)


def write_a_row_for_each(x):
    h = spread(x) + torch.zeros(4, 3)
    h[torch.arange(2), ROWS] = 0
    return h


def add_to_rows(x):
    return spread(x).index_add(1, ROWS, torch.ones(2, 2, 3))


@pytest.mark.inductor
@pytest.mark.xfail(raises=AssertionError, reason=IN_PLACE)
@pytest.mark.parametrize(
    "program",
    [fill, fill_after_a_sum_with_zeros, fill_windows, write_a_row_for_each, add_to_rows],
    ids=lambda f: f.__name__,
)
def test_a_write_by_index(program):
    x = torch.arange(6.0).reshape(2, 3) + 1
    torch.testing.assert_close(torch.compile(program)(x), program(x))


class OnePlace(nn.Module):
    """A public number is written into a buffer."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("ema", torch.ones(3))

    def forward(self, x):
        self.ema[0] = 3.0
        return (x * self.w * self.ema).sin()


class Step(nn.Module):
    """A counter that is used after it was increased."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("step", torch.zeros(()))

    def forward(self, x):
        self.step += 1
        return (x * self.w * (self.step / 10).clamp(max=1)).sin()


@pytest.mark.inductor
@pytest.mark.xfail(raises=AssertionError, reason=KEPT)
@pytest.mark.parametrize("kind", [OnePlace, Step])
def test_a_buffer_that_is_written(kind):
    plain = kind()
    model = copy.deepcopy(plain)
    compiled = torch.compile(model)
    x = torch.linspace(-1, 2, 12).reshape(4, 3)
    for _ in range(2):
        plain(x).sum().backward()
        compiled(x).sum().backward()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
    torch.testing.assert_close(model.w.grad, plain.w.grad)


class ReadBefore(nn.Module):
    """A buffer that is read, and written afterwards."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("ema", torch.ones(3))

    def forward(self, x):
        y = x * self.w * (self.ema * 2)
        self.ema.add_(1)
        return y.sin()


@pytest.mark.xfail(raises=RuntimeError, reason=OVERWRITTEN)
def test_a_buffer_that_is_read_before():
    torch.compile(ReadBefore(), backend="aot_eager_decomp_partition")(torch.ones(4, 3)).sum().backward()


class Counting(nn.Module):
    """A buffer of one float64 number, which is written in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.calls.add_(1)
        return self.layer(x)


@pytest.mark.xfail(raises=AssertionError, reason=DROPPED)
def test_a_number_that_is_written():
    model = Counting()
    torch.compile(model, backend="aot_eager")(torch.ones(4, 3))
    assert model.calls == 1


def gradient_of_noise(backend, budget):
    """d/dw of sin(x w) n is x cos(x w) n; with x and w ones, the outputs tell n."""
    torch._dynamo.reset()
    w = torch.ones(50, requires_grad=True)
    x = torch.ones(50)
    with torch._functorch.config.patch(activation_memory_budget=budget):
        y = torch.compile(lambda x, w: (x * w).sin() * torch.rand_like(x), backend=backend)(x, w)
        y.sum().backward()
    return w.grad, y.detach() / torch.tensor(1.0).tan()


@pytest.mark.xfail(raises=AssertionError, reason=DRAWN)
@pytest.mark.parametrize(
    "backend", ["aot_eager_decomp_partition", pytest.param("inductor", marks=pytest.mark.inductor)]
)
def test_noise_with_no_memory(backend):
    torch.testing.assert_close(*gradient_of_noise(backend, 0.0))


@pytest.mark.parametrize("backend", ["aot_eager_decomp_partition"])
def test_noise_with_memory_is_right(backend):
    torch.testing.assert_close(*gradient_of_noise(backend, 1.0))


def dropped(budget):
    torch._dynamo.reset()
    w = torch.ones(400, requires_grad=True)
    with torch._functorch.config.patch(activation_memory_budget=budget):
        y = torch.compile(lambda w: F.dropout(w.sin(), 0.5).cos(), backend="aot_eager_decomp_partition")(w)
        y.sum().backward()
    return (w.grad == 0), (y == 1)


@pytest.mark.xfail(raises=AssertionError, reason=DRAWN)
def test_dropout_with_no_memory():
    torch.testing.assert_close(*dropped(0.0))


def up_to_the_longest(x, w, lengths):
    return (x * w)[:, : lengths.max().item()].sum()


@pytest.mark.inductor
@pytest.mark.xfail(raises=torch._inductor.exc.InductorError, reason="no size of a slice's gradient is known: an error")
def test_a_slice_of_a_length_that_values_tell():
    w = torch.ones(3, requires_grad=True)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        torch.compile(up_to_the_longest, fullgraph=True)(torch.ones(2, 3), w, ROWS).backward()
    assert w.grad.tolist() == [2.0, 2.0, 0.0]


def returned_and_viewed(x, w, v):
    y = (x @ w).clone()
    rows = y.view(-1, 8)
    return y, rows @ v, rows.view(4, 2, 8).sin()


@pytest.mark.inductor
@pytest.mark.xfail(raises=AssertionError, reason=GIVEN_AWAY)
def test_an_output_after_the_backward():
    x, w, v = torch.randn(4, 2, 8), torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    output, *others = torch.compile(returned_and_viewed)(x, w, v)
    sum(y.sin().sum() for y in others).backward()
    torch.testing.assert_close(output, x @ w)


@pytest.mark.inductor
@pytest.mark.xfail(
    raises=torch._inductor.exc.InductorError, reason="strides of any size are put into an order: an error"
)
def test_channels_that_are_shuffled_in_images_of_any_size():
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2)

    def shuffled(x):
        return second(F.channel_shuffle(first(x), 2))

    x = torch.randn(4, 4, 5, 6).to(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(shuffled, dynamic=True)(x), shuffled(x))
