"""Sound programs of public code are exact, on both backends; those that cannot be seen to be sound are refused so."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import CompileOptions, DPGraphError, UnsupportedProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact
from tests.sound_programs import PROGRAMS, B, D, Run, SoundProgram, T, bert_rows

INDUCTOR = CompileOptions(backend="inductor")


def draw(program: SoundProgram, dtype: torch.dtype) -> tuple[nn.Module, list[Tensor]]:
    """The module and its inputs, made in the dtype: a conversion would change their strides."""
    torch.manual_seed(5)
    torch.set_default_dtype(dtype)
    try:
        return program.make(), program.inputs()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", PROGRAMS)
def test_sound_programs_are_exact(name):
    model, inputs = draw(PROGRAMS[name], torch.float64)
    axes = list(PROGRAMS[name].axes or [0] * len(inputs))
    named = {f"args[{i}]": axis for i, axis in enumerate(axes)}
    check_exact(model, *inputs, clipping="auto-v", batch_dims=axes, named_batch_dims=named)


class Together(nn.Module):
    """Several programs in one graph, each with inputs of its own; their outputs [B, ...] side by side."""

    def __init__(self, models: list[nn.Module], num_inputs: list[int]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.num_inputs = num_inputs

    def forward(self, *args: Tensor) -> Tensor:
        outputs, start = [], 0
        for model, num in zip(self.models, self.num_inputs, strict=True):
            output = model(*args[start : start + num])
            outputs.append(output.reshape(output.shape[0], -1))
            start += num
        return torch.cat(outputs, 1)


def named_like(*words: str) -> list[str]:
    return [name for name in PROGRAMS if any(word in name for word in words)]


GROUPS = {
    "recurrent": named_like("LSTM", "GRU", "RNN"),
    "rows": named_like("place", "offsets", "edges", "margin", "last row"),
    "kernels": named_like("convolution", "correlation"),
}
GROUPS["others"] = [n for n in PROGRAMS if not any(n in names for names in GROUPS.values())]
# Float32 is what was refused of the recurrent ones.
RUNS = [(group, torch.float32 if group == "recurrent" else torch.float64, INDUCTOR) for group in GROUPS]
RUNS += [(group, torch.float32, EAGER) for group in GROUPS]


@pytest.mark.parametrize(
    ("group", "dtype", "options"), [pytest.param(*run, id=f"{run[0]}-{run[1]}-{run[2].backend}") for run in RUNS]
)
def test_sound_programs_are_exact_in_one_graph(group, dtype, options):
    drawn = [draw(PROGRAMS[name], dtype) for name in GROUPS[group]]
    model = Together([m for m, _ in drawn], [len(inputs) for _, inputs in drawn])
    axes: list[int] = []
    for name, (_, inputs) in zip(GROUPS[group], drawn, strict=True):
        axes += PROGRAMS[name].axes or [0] * len(inputs)
    check_exact(
        model,
        *(x for _, inputs in drawn for x in inputs),
        batch_dims=axes,
        named_batch_dims={f"args[{i}]": axis for i, axis in enumerate(axes)},
        options=options,
        tolerance=1e-10 if dtype is torch.float64 else 1e-3,
        loss=lambda y: (y.flatten(1).sin() + y.flatten(1).square() / 4).sum(1),
    )


def test_states_by_name_have_their_samples_on_axis_1():
    net = nn.LSTM(D, 4, batch_first=True)
    module = dp_compile(net, "full", batch_dims={"input": 0, "hx": 1}, options=EAGER)
    states = torch.randn(1, B, 4), torch.randn(1, B, 4)
    outputs, _ = module(torch.randn(B, T, D), states)
    assert outputs.shape == (B, T, 4)
    outputs.sum().backward()
    assert module.grad_norms.shape == (B,)


@pytest.mark.parametrize("net", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_layers_is_not_left_out(net):
    model = net(D, 4, num_layers=2, dropout=0.5, batch_first=True).train()
    module = dp_compile(model, "full", options=EAGER)
    x = torch.randn(64, T, D)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    torch.testing.assert_close(module(x)[0], model(x)[0])


# How a batch may lie in memory, of n samples, with its axis.
LAYOUTS = {
    "every second": (0, lambda n: torch.randn(2 * n, D)[::2]),
    "every second number": (0, lambda n: torch.randn(2 * n)[::2]),
    "one column": (0, lambda n: torch.randn(n, 7)[:, 2]),
    "some columns": (0, lambda n: torch.randn(n, 9)[:, 1:8:2]),
    "transposed": (0, lambda n: torch.randn(D, 2 * n).T[::2]),
    "expanded": (0, lambda n: torch.randn(1, D).expand(n, D)),
    "a window": (0, lambda n: torch.randn(n + 2).unfold(0, 3, 1)),
    "positions first": (0, lambda n: torch.randn(5, 2 * n, D).transpose(0, 1)[:n]),
    "positions first, some columns": (0, lambda n: torch.randn(5, n, 2 * D).transpose(0, 1)[..., :D]),
    "on axis 1": (1, lambda n: torch.randn(D, 2 * n)[:, :n]),
    "on axis 1, every second": (1, lambda n: torch.randn(D, 2 * n)[:, ::2]),
    "on axis 1 of one row": (1, lambda n: torch.randn(1, 2 * n)[:, ::2]),
    "on axis 1 of some columns": (1, lambda n: torch.randn(5, n, 2 * D)[..., :D]),
    "on axis 2": (2, lambda n: torch.randn(5, D, 2 * n)[..., ::2]),
    "channels last": (0, lambda n: torch.randn(n, D, 4, 6).to(memory_format=torch.channels_last)[..., :4]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_graph_is_for_batches_of_every_size_however_they_lie(layout):
    axis, make = LAYOUTS[layout]
    weight = nn.Parameter(torch.randn(()))
    model = Run(lambda m, x: (x.movedim(axis, 0).reshape(x.shape[axis], -1) * m.weight).sin().sum(1), weight=weight)
    module = dp_compile(model, "full", batch_dims=axis, options=EAGER)
    for num_samples in (4, 6, 2, 9):
        module(make(num_samples)).sum().backward()
    assert len(module._calls.compiler.rewritings) == 1


def test_an_offset_that_is_out_of_range_reaches_no_other_sample():
    model = Run(bert_rows, l=nn.Linear(D, 4)).double()
    x, offsets = torch.randn(B, T, D, dtype=torch.float64), torch.tensor([[0, 1], [T, 2], [0, -1], [1, -T - 1]])
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)

    def gradient(x: Tensor, offsets: Tensor) -> Tensor:
        model.zero_grad()
        module(x, offsets).square().sum().backward()
        return model.l.weight.grad.clone()

    whole = gradient(x, offsets)
    alone = [gradient(x[b : b + 1], offsets[b : b + 1]) for b in range(B)]
    torch.testing.assert_close(whole, torch.stack(alone).sum(0))
    assert all(g.norm() <= 1 + 1e-9 for g in alone)
    # beyond the rows is the nearest of them, and a negative one counts from the end
    torch.testing.assert_close(whole, gradient(x, torch.tensor([[0, 1], [T - 1, 2], [0, T - 1], [1, 0]])))


LABELS = torch.tensor([[0, -100, 1], [1, 1, -100], [-100, 0, 0], [0, 1, 1]])


def picked_loss(m, x, y):
    kept = y != -100
    return F.cross_entropy(m.l(x)[kept], y[kept], reduction="sum")


# What is sound as far as one can tell, and cannot be seen: what the error has to say, and what to write instead.
UNSEEN = {
    "rows of labels that count": (
        picked_loss,
        lambda: [torch.randn(B, T, D), LABELS],
        "picks elements by a mask",
        "torch.where",
    ),
    "masked_select": (
        lambda m, x, y: torch.masked_select(m.l(x).sum(2), y > 0).sum(),
        lambda: [torch.randn(B, T, D), LABELS],
        "picks elements by a mask",
        "torch.where",
    ),
    "a Python range": (
        lambda m, x, y: m.l(x)[range(x.shape[0]), y[:, 0].clamp_min(0)],
        lambda: [torch.randn(B, T, D), LABELS],
        "Python range or list",
        "torch.arange",
    ),
    "a kernel for each sample under vmap": (
        lambda m, x, s: torch.vmap(lambda a, w: F.conv1d(a[None], w)[0])(x, m.l(s)[:, :, None, None]),
        lambda: [torch.randn(B, 1, T), torch.randn(B, D)],
        "under vmap",
        "groups=B",
    ),
    "one of each sample before three of each": (
        lambda m, q, p: m.l(torch.cat([q, p.flatten(0, 1)]))[: q.shape[0]],
        lambda: [torch.randn(B, D), torch.randn(B, T, D)],
        "follow one another in different ways",
        "another axis",
    ),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_seen_to_be_sound_is_not_called_unsound(name):
    function, inputs, reason, fix = UNSEEN[name]
    with pytest.raises(DPGraphError) as caught:
        dp_compile(Run(function, l=nn.Linear(D, 2)), "full", options=EAGER)(*inputs())
    error = caught.value
    assert isinstance(error, UnsupportedProgramError)
    assert reason in error.what
    assert fix in error.fix
    assert "dpgraph cannot see that" in f"{error.what} {error.why}"
    assert "here it does" not in str(error)
