"""Calls of no samples: the model is captured, nothing is computed with made-up rows, and gradients are zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import CompileOptions, dp_compile
from tests.models.run import Run
from tests.programs.exact import check_exact, squares

f64 = torch.float64
EAGER, INDUCTOR = CompileOptions(backend="eager"), CompileOptions()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64)


def check_zero(module: nn.Module) -> None:
    """The last backward was of no samples: every trained parameter has a gradient, of zeros, of its own dtype."""
    for name, p in module.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        if p.grad is not None:
            assert p.grad.dtype == p.dtype
            assert not p.grad.any(), name
    assert module.grad_norms.shape[0] == 0
    assert module.num_nonfinite == 0


def last_state(m: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    h, _ = m.states(x)
    return m.head(h.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, h.shape[2])).squeeze(1))


def recurrent() -> Run:
    return Run(last_state, states=nn.LSTM(4, 3, batch_first=True), head=nn.Linear(3, 2)).double()


def counted_from_one(m: nn.Module, ids: Tensor) -> Tensor:
    return m.head(m.table(ids - 1))


def table() -> Run:
    return Run(counted_from_one, table=nn.Embedding(5, 3), head=nn.Linear(3, 2)).double()


def labels_from_one(y: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(y, labels - 1, reduction="none")


LENGTHS, IDS, LABELS = torch.tensor([3, 1, 2]), torch.tensor([5, 1, 2]), torch.tensor([2, 1, 2])

PROGRAMS = {
    "the state at a sample's last position": (recurrent, lambda: (rows(3, 3, 4), LENGTHS)),
    "ids that count from 1": (table, lambda: (IDS,)),
}


@pytest.mark.parametrize("first", ["empty", "full"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_indices_that_a_row_of_zeros_would_not_hold(name, first):
    build, batch = PROGRAMS[name]
    model, inputs = build(), batch()
    module = dp_compile(model, "full", options=EAGER)
    if first == "full":
        check_exact(model, *inputs, module=module)
        model.zero_grad()
    y = module(*(x[:0] for x in inputs))
    assert y.shape == (0, 2)
    assert y.dtype == f64
    y.sum().backward()
    check_zero(module)
    check_exact(model, *inputs, module=module)
    assert len(module._calls.compiler.rewritings) == 1


@pytest.mark.parametrize("batch", ["any", "fixed"])
@pytest.mark.parametrize("first", ["empty", "full"])
def test_a_loss_in_the_graph_with_labels_from_one(first, batch):
    model, x = nn.Linear(4, 2).double(), rows(3, 4)
    options = CompileOptions(backend="eager", batch=batch)
    module = dp_compile(model, "full", loss_fn=labels_from_one, loss_reduction="mean", options=options)
    if first == "full":
        module(x, targets=(LABELS,)).mean().backward()
        model.zero_grad()
    losses = module(x[:0], targets=(LABELS[:0],))
    assert losses.shape == (0,)
    losses.mean().backward()
    check_zero(module)


@pytest.mark.inductor
@pytest.mark.parametrize("batch", ["any", "fixed"])
def test_through_inductor(batch):
    model, x, ids = _all_of_it(), rows(3, 3, 4), IDS
    options = CompileOptions(batch=batch)
    module = dp_compile(model, "full", loss_fn=labels_from_one, options=options)
    for size in (0, 3, 0) if batch == "any" else (3, 0):
        model.zero_grad()
        losses = module(x[:size], LENGTHS[:size], ids[:size], targets=(LABELS[:size],))
        assert losses.shape == (size,)
        losses.sum().backward()
        if size == 0:
            check_zero(module)
    assert int(model.steps) == (3 if batch == "any" else 2)


def _all_of_it() -> Run:
    def forward(m: nn.Module, x: Tensor, lengths: Tensor, ids: Tensor) -> Tensor:
        m.steps += 1
        return last_state(m, x, lengths) + m.head(m.table(ids - 1))

    model = Run(
        forward, states=nn.LSTM(4, 3, batch_first=True), head=nn.Linear(3, 2), table=nn.Embedding(5, 3)
    ).double()
    model.register_buffer("steps", torch.zeros((), dtype=torch.int64))
    return model


def test_gradients_add_up_over_empty_calls():
    model, (ids,) = table(), PROGRAMS["ids that count from 1"][1]()
    module = dp_compile(model, "full", options=EAGER)
    squares(module(ids)).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    module(ids[:0]).sum().backward()
    for p, grad in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=0, atol=0)
    squares(module(ids)).sum().backward()
    for p, grad in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, 2 * grad)


def test_a_forward_without_backward_and_calls_of_several_sizes_in_one_backward():
    model, (ids,) = table(), PROGRAMS["ids that count from 1"][1]()
    module = dp_compile(model, "full", options=EAGER)
    module(ids[:0])
    assert all(p.grad is None for p in model.parameters())
    squares(torch.cat([module(ids), module(ids[:0])])).sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    squares(module(ids)).sum().backward()
    for p, grad in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, grad)


class Outputs(nn.Module):
    """Outputs of every kind: one a sample on several axes, whole numbers, sums, what no sample owns, and a state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.log_scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.ones(2, 2).tril())

    def forward(self, x: Tensor, ids: Tensor) -> dict[str, object]:
        self.steps += 2
        y = self.layer(x) * self.log_scale.exp()
        return {
            "rows": y,
            "second axis": y.transpose(0, 1).float(),
            "merged": y.repeat_interleave(2, 0).to(torch.bfloat16),
            "whole": ids - 1,
            "truth": ids > 2,
            "input": x,
            "sum": y.sum(0),
            "scale": self.log_scale.exp(),
            "steps": self.steps * 10,
            "mask": self.mask,
            "length": x.new_ones(x.shape[1]).cumsum(0),
            "position": torch.arange(len(ids)),
            "constant": 3,
        }


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_outputs_of_every_kind(backend):
    model = Outputs().double()
    module = dp_compile(model, "trainable", options=CompileOptions(backend=backend))
    x, ids = rows(3, 4), IDS
    for first in (True, False):
        model.steps.zero_()
        found = module(x[:0], ids[:0])
        assert int(model.steps) == 2
        expected = module.original_module(x[:0], ids[:0])
        for name, value in expected.items():
            if not isinstance(value, Tensor):
                assert found[name] == value
                continue
            assert found[name].shape == value.shape, name
            assert found[name].dtype == value.dtype, name
            assert found[name].device == value.device
            if name in ("scale", "mask", "length", "sum"):
                torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0)
        assert int(found["steps"]) == 20
        assert found["rows"].requires_grad
        assert not found["whole"].requires_grad
        (found["rows"].sum() + found["sum"].sum()).backward()
        check_zero(module)
        if first:
            module(x, ids)["rows"].sum().backward()
            model.zero_grad()


def test_lengths_that_vary():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double()
    module = dp_compile(model, "full", options=EAGER)
    for size, length in ((2, 5), (0, 6), (3, 7), (0, 8), (0, 5)):
        y = module(rows(size, length, 4))
        assert y.shape == (size, length, 3)
        y.sum().backward()


def test_the_graph_does_not_run():
    model, (ids,) = table(), PROGRAMS["ids that count from 1"][1]()
    module = dp_compile(model, "full", options=EAGER)
    module(ids[:0])
    with torch.profiler.profile() as run:
        module(ids[:0]).sum().backward()
    names = {event.name for event in run.events()}
    assert "aten::embedding" not in names
    assert "aten::mm" not in names
    assert "aten::addmm" not in names


def test_groups_and_parameters_that_the_forward_leaves_out():
    model = Run(lambda m, x: m.used(x), used=nn.Linear(4, 3), left_out=nn.Linear(4, 3)).double()
    module = dp_compile(model, "full", grouping="per-layer", options=EAGER)
    module(rows(0, 4)).sum().backward()
    assert model.used.weight.grad is not None
    assert model.left_out.weight.grad is None
    assert module.grad_norms.shape == (0, 2)


def test_autocast():
    model = nn.Linear(4, 3)
    model.register_buffer("scale", torch.full((1,), 0.3))
    run = Run(lambda m, x: (m.layer(x), m.layer.scale * 3), layer=model)
    module = dp_compile(run, "full", options=EAGER)
    with torch.autocast("cpu", torch.bfloat16):
        y, scale = module(torch.randn(0, 4))
    assert y.dtype == torch.bfloat16
    assert scale.dtype == torch.float32
    y.sum().backward()
    check_zero(module)


def test_what_the_number_of_samples_scales_and_no_sample_owns():
    model = Run(lambda m, x: (m.layer(x), m.layer.scale * len(x), m.layer.scale / len(x)), layer=nn.Linear(4, 3))
    model.layer.register_buffer("scale", torch.full((1,), 0.3))
    module = dp_compile(model, "full", options=EAGER)
    for size in (3, 1, 0):
        _, times, over = module(torch.randn(size, 4))
        assert float(times) == pytest.approx(0.3 * size)
        assert float(over) == pytest.approx(0.3 / size if size else torch.inf)
