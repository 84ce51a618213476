"""Every tensor that enters a graph is a parameter, a buffer or an argument of the call, however it is passed."""

import dataclasses
from collections import UserDict
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BatchEncoding

from dpgraph import CompileOptions, UnsupportedProgramError, dp_compile
from dpgraph.capture.containers import find_leaves, map_leaves
from tests.oracle import group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER, INDUCTOR

f64 = torch.float64


@dataclasses.dataclass
class Open:
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    y: Any


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


class Named(NamedTuple):
    x: Any
    y: Any


class OwnDict(dict):
    pass


def by_attribute(batch):
    return batch.x, batch.y


def by_key(batch):
    return batch["x"], batch["y"]


FORMS = {
    "dataclass": (Open, by_attribute),
    "frozen dataclass": (Frozen, by_attribute),
    "object with slots": (Slotted, by_attribute),
    "named tuple": (Named, by_attribute),
    "namespace": (lambda x, y: SimpleNamespace(x=x, y=y), by_attribute),
    "dict": (lambda x, y: {"x": x, "y": y}, by_key),
    "dict of its own class": (lambda x, y: OwnDict(x=x, y=y), by_key),
    "UserDict": (lambda x, y: UserDict(x=x, y=y), by_key),
    "BatchEncoding": (lambda x, y: BatchEncoding({"x": x, "y": y}), by_key),
    "nested": (lambda x, y: {"a": [Open(x, (y,))]}, lambda b: (b["a"][0].x, b["a"][0].y[0])),
}


class OfBatch(nn.Module):
    """Losses of a batch in one argument."""

    def __init__(self, parts) -> None:
        super().__init__()
        self.parts = parts
        self.layer = nn.Linear(3, 3)

    def forward(self, batch):
        x, y = self.parts(batch)
        return (self.layer(x) - y).square().sum(1)


def check(model, module, batch, cut) -> None:
    """A step with batches of `cut` sizes, against the loop."""
    for num_samples in cut:
        part = map_leaves(lambda v, n=num_samples: v[:n] if isinstance(v, Tensor) else v, batch)
        model.zero_grad()
        losses = module(part)
        assert losses.shape == (num_samples,)
        losses.sum().backward()

        def loss_of(twin, b, part=part):
            return twin(map_leaves(lambda v: v[b : b + 1] if isinstance(v, Tensor) else v, part)).sum()

        if num_samples == 0:
            assert all(not p.grad.any() for p in model.parameters())
            continue
        groups = group_names([name for name, _ in model.named_parameters()], "flat")
        expected = per_sample_gradients(model, loss_of, num_samples).clipped_sum(groups, "auto-v", 1.0)
        errors = relative_errors({name: p.grad for name, p in model.named_parameters()}, expected)
        assert max(errors.values()) < 1e-10, errors


@pytest.mark.parametrize("form", FORMS)
def test_batches_in_containers_are_found(form):
    make, parts = FORMS[form]
    batch = make(torch.randn(4, 3, dtype=f64), torch.randn(4, 3, dtype=f64))
    model = OfBatch(parts).double()
    check(model, dp_compile(model, "full", clipping="auto-v", options=EAGER), batch, (4, 1, 0, 3))


@pytest.mark.inductor
def test_batches_in_containers_are_found_by_inductor():
    make, parts = FORMS["nested"]
    batch = make(torch.randn(4, 3, dtype=f64), torch.randn(4, 3, dtype=f64))
    model = OfBatch(parts).double()
    check(model, dp_compile(model, "full", clipping="auto-v"), batch, (4, 1, 0))


def test_outputs_in_containers_lose_their_padding():
    class Out(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return Open(self.layer(x), {"twice": 2 * self.layer(x)})

    made = dp_compile(Out(), "full", options=EAGER)(torch.randn(1, 3))
    assert made.x.shape == made.y["twice"].shape == (1, 3)


def test_leaves_are_replaced_in_copies_alone():
    x = torch.ones(2)
    inner = SimpleNamespace(x=x, me=None, name="a")
    inner.me = inner
    outer = Frozen(inner, [x, 3])
    doubled = map_leaves(lambda v: 2 * v if isinstance(v, Tensor) else v, outer)
    assert [v for v in find_leaves(outer) if isinstance(v, Tensor)] == [x, x]
    assert inner.x is x
    assert torch.equal(doubled.x.x, 2 * x)
    assert torch.equal(doubled.y[0], 2 * x)
    assert (doubled.x.name, doubled.y[1]) == ("a", 3)


def test_objects_without_tensors_stay_the_very_objects():
    config = SimpleNamespace(size=3, names=["a"])
    assert map_leaves(lambda v: v, config) is config


targets = torch.tensor([0, 1, 2, 0])
weight = torch.ones(3)
BESIDE = {
    "targets in the closure of the loss": (lambda out: F.cross_entropy(out, targets, reduction="none"), "targets"),
    "weights in the closure of the loss": (
        lambda out: F.cross_entropy(out, out.argmax(1), weight=weight, reduction="none"), "weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("name", BESIDE)
def test_tensors_beside_the_arguments_are_refused(name, backend):
    loss_fn, said = BESIDE[name]
    module = dp_compile(nn.Linear(3, 3), "full", loss_fn=loss_fn, options=CompileOptions(backend=backend))
    with pytest.raises(UnsupportedProgramError, match=f"{said}'.*no argument of the call"):
        module(torch.randn(4, 3))


class Beside(nn.Module):
    def __init__(self, program) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.kept = SimpleNamespace(scale=torch.ones(3))
        self.program = program

    def forward(self, x):
        return self.program(self, x)


PROGRAMS = {
    "an attribute set before the call": (lambda m, x: m.layer(x) - m.current, "current"),
    "an attribute of an attribute": (lambda m, x: m.layer(x) * m.kept.scale, r"kept\.scale"),
    "a global tensor": (lambda m, x: m.layer(x) * weight, "weight"),
    "the gradient of a parameter": (lambda m, x: m.layer(x) * m.layer.weight.grad.sum(), r"layer\.weight\.grad"),
    "an array": (lambda m, x: m.layer(x) * torch.as_tensor(m.array), "array"),
}


@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_comes_past_the_arguments_is_refused(name, backend):
    program, said = PROGRAMS[name]
    model = Beside(program)
    module = dp_compile(model, "full", options=CompileOptions(backend=backend))
    model.current = torch.randn(4, 3)
    model.layer.weight.grad = torch.ones(3, 3)
    model.array = torch.ones(3).numpy()
    with pytest.raises(UnsupportedProgramError, match=said) as caught:
        module(torch.randn(4, 3))
    assert "register_buffer" in caught.value.fix


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale, self.table = torch.ones(3), {"a": [torch.ones(3)]}

    def forward(self, x):
        return self.layer(x) * self.scale + self.table["a"][0]


def test_attributes_that_the_model_came_with_are_a_part_of_it():
    module = dp_compile(Holding(), "full", options=EAGER)
    module(torch.randn(4, 3)).sum().backward()
    entered = module.certificate.graphs[0].entered
    assert {"scale: the same for all samples", "table: the same for all samples"} < set(entered)


def put_another(model):
    model.scale = torch.ones(3)


def write_into(model):
    model.scale.copy_(torch.randn(3))


@pytest.mark.parametrize("change", [put_another, write_into])
def test_attributes_that_came_later_are_not(change):
    model = Holding()
    module = dp_compile(model, "full", options=EAGER)
    change(model)
    with pytest.raises(UnsupportedProgramError, match="'scale'"):
        module(torch.randn(4, 3))


BACKENDS = [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)]


@pytest.mark.parametrize("options", BACKENDS, ids=["eager", "inductor"])
@pytest.mark.parametrize("change", [put_another, write_into])
def test_attributes_that_came_after_the_first_call_are_not(change, options):
    model = Holding()
    module = dp_compile(model, "full", options=options)
    for _ in range(2):
        module(torch.randn(4, 3)).sum().backward()
    change(model)
    with pytest.raises(UnsupportedProgramError, match="'scale'"):
        module(torch.randn(4, 3))


class Ageing(nn.Module):
    """Keeps what is free of samples: one attribute is written in place, one is assigned anew, and the next call reads
    both."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.steps, self.decay = torch.zeros(1), torch.ones(1)

    def forward(self, x):
        self.steps.add_(1)
        self.decay = self.decay * 0.5
        return self.layer(x) * self.decay + self.steps


def test_constants_made_in_inference_mode_are_constants_in_every_call():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            with torch.inference_mode():
                self.register_buffer("mask", torch.ones(3))

        def forward(self, x):
            return self.layer(x.masked_fill(self.mask == 0, 0.0))

    module = dp_compile(Masked(), "full", options=EAGER)
    for _ in range(2):
        module(torch.randn(4, 3)).sum().backward()
    assert module.layer.weight.grad is not None


def test_what_the_forward_itself_keeps_stays_known():
    model = Ageing()
    module = dp_compile(model, "full", options=EAGER)
    for step in range(1, 4):
        y = module(x := torch.randn(4, 3))
        torch.testing.assert_close(y, model.layer(x) * 0.5**step + step)
        y.sum().backward()
    assert len(module._calls.compiler.rewritings) == 1
    model.decay.copy_(torch.randn(1))
    with pytest.raises(UnsupportedProgramError, match="'decay'"):
        module(torch.randn(4, 3))


def test_buffers_and_frozen_parameters_out_of_sight_are_constants():
    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.hidden = [nn.Linear(3, 3).requires_grad_(False)]
            self.register_buffer("scale", torch.ones(3))

        def forward(self, x):
            return (self.layer(x) - self.hidden[0](x)) * self.scale

    dp_compile(Distilled(), "full", options=EAGER)(torch.randn(4, 3)).sum().backward()


def test_the_loss_may_own_buffers():
    loss = nn.CrossEntropyLoss(weight=torch.ones(3), reduction="none")
    module = dp_compile(nn.Linear(3, 3), "full", loss_fn=loss, options=EAGER)
    module(torch.randn(4, 3), targets=(targets,)).sum().backward()
