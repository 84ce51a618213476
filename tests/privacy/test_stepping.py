"""A step with noise uses what private graphs delivered, once, and nothing else."""

import gc

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, CompileOptions, dp_compile
from dpgraph.privacy import add_noise_on_step
from tests.lower.delivering import build, clipped, loss, rows
from tests.programs.exact import EAGER

BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.inductor)]


def noise_on(optimizer, sigma=0.0):
    return add_noise_on_step(optimizer, noise_multiplier=sigma, sensitivity=1.1, expected_batch_size=1.0)


def private(kind=torch.optim.SGD, extra=(), backend="eager"):
    model, q = build(backend)
    optimizer = kind([*model.named_parameters(), *extra], lr=1.0)
    return model, q, optimizer, noise_on(optimizer)


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def check_step(model, optimizer, before, expected):
    optimizer.step()
    for p, old, g in zip(model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(p.detach(), old - g)


def refused(model, optimizer, match):
    before = values(model)
    held = [p.grad for p in model.parameters()]
    with pytest.raises(ArgumentError, match=match) as caught:
        optimizer.step()
    assert all(map(torch.equal, before, values(model)))
    assert all(p.grad is g for p, g in zip(model.parameters(), held, strict=True))
    return caught.value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_steps_follow_each_other(backend, set_to_none):
    model, q, optimizer, noise = private(backend=backend)
    for num in (6, 5, 6):
        expected, before = clipped(model, rows(num)), values(model)
        loss(q(rows(num))).backward()
        check_step(model, optimizer, before, expected)
        optimizer.zero_grad(set_to_none=set_to_none)
    assert noise.num_steps == 3
    optimizer.step()  # no batch: noise alone
    assert noise.num_steps == 4


def test_clipping_again_before_the_step_is_allowed():
    model, q, optimizer, _ = private()
    loss(q(rows())).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    before, expected = values(model), [p.grad.clone() for p in model.parameters()]
    check_step(model, optimizer, before, expected)


def test_a_gradient_that_was_not_cleared_is_refused_before_the_next_is_added():
    model, q, optimizer, _ = private()
    loss(q(rows())).backward()
    optimizer.step()
    held = [p.grad.clone() for p in model.parameters()]
    with pytest.raises(ArgumentError, match="step before"):
        loss(q(rows())).backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), held, strict=True))
    model.first.weight.grad.mul_(2)
    with pytest.raises(ArgumentError, match="step before"):
        loss(q(rows())).backward()
    refused(model, optimizer, "step before")
    loss(model(rows())).backward()  # past the graph, on top of it
    refused(model, optimizer, "step before")


def test_the_model_itself_is_not_stepped_with():
    model, q, optimizer, _ = private()
    loss(model(rows())).backward()
    assert q.training
    assert refused(model, optimizer, "did not come from a private graph").place.parameter == "first.weight"
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


def test_a_part_called_alone_is_not_stepped_with():
    model, q, optimizer, _ = private()
    q.encode(rows()).sum().backward()
    assert refused(model, optimizer, "did not come from a private graph").place.parameter == "first.weight"


def test_a_module_before_the_private_one_is_not_stepped_with():
    torch.manual_seed(0)
    before = nn.Linear(4, 4).double()
    model, q, optimizer, _ = private(extra=[(f"before.{n}", p) for n, p in before.named_parameters()])
    loss(q(before(rows()))).backward()
    assert refused(model, optimizer, "did not come from a private graph").place.parameter == "before.weight"


@pytest.mark.parametrize("how", ["assigned", "replaced"])
def test_gradients_set_by_hand_are_not_stepped_with(how):
    model, q, optimizer, _ = private()
    loss(q(rows())).backward()
    p = model.last.weight
    p.grad = torch.ones_like(p) if how == "assigned" else p.grad.clone()
    assert refused(model, optimizer, "did not come from a private graph").place.parameter == "last.weight"


def test_computed_parameters_are_not_stepped_with():
    """What is bounded is the gradient of what was computed, and not of what it was computed from."""
    model, q, optimizer, _ = private()
    computed = {name: 10 * p for name, p in model.named_parameters()}
    loss(torch.func.functional_call(q, computed, (rows(),))).backward()
    refused(model, optimizer, "did not come from a private graph")


def test_gradients_that_were_returned_are_not_stepped_with():
    model, q, optimizer, _ = private()
    found = torch.autograd.grad(loss(q(rows())), list(model.parameters()))
    for p, g in zip(model.parameters(), found, strict=True):
        p.grad = g
    refused(model, optimizer, "did not come from a private graph")


def test_a_backward_that_failed_is_not_stepped_with():
    model, q, optimizer, _ = private()
    loss(q(rows(5))).backward()
    with pytest.raises(ArgumentError, match="past the private graph"):
        (loss(q(rows())) + q.encode(rows()).sum()).backward()
    refused(model, optimizer, "did not come from a private graph")
    optimizer.zero_grad()
    expected, before = clipped(model, rows()), values(model)
    loss(q(rows())).backward()
    check_step(model, optimizer, before, expected)


def test_a_foreign_backward_that_was_refused_leaves_what_was_delivered():
    model, q, optimizer, _ = private()
    expected, before = clipped(model, rows()), values(model)
    loss(q(rows())).backward()
    with pytest.raises(ArgumentError, match="past the private graph"):
        q.encode(rows()).sum().backward()
    check_step(model, optimizer, before, expected)


def test_an_optimizer_without_trained_parameters_is_refused():
    q = build()[1]
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    noise_on(optimizer)
    optimizer.step()  # nothing waits
    optimizer.zero_grad()
    loss(q(rows())).backward()
    refused(other, optimizer, "holds none of the parameters")
    for p in other.parameters():
        p.grad = torch.ones_like(p)  # clipped by somebody else
    optimizer.step()


def test_an_optimizer_of_replaced_parameters_is_refused():
    model, q, optimizer, _ = private()
    q.load_state_dict({name: p.detach().clone() for name, p in model.named_parameters()}, assign=True)
    loss(q(rows())).backward()
    with pytest.raises(ArgumentError, match="holds none of the parameters"):
        optimizer.step()


def test_an_optimizer_of_frozen_parameters_alone_is_refused():
    model = build()[0]
    q = dp_compile(model, "bitfit", options=EAGER)
    optimizer = torch.optim.SGD([model.first.weight, model.last.weight], lr=1.0)
    noise_on(optimizer)
    loss(q(rows())).backward()
    with pytest.raises(ArgumentError, match="holds none of the parameters"):
        optimizer.step()


def test_two_optimizers_share_the_parameters():
    model, q = build()
    optimizers = [torch.optim.SGD(part.parameters(), lr=1.0) for part in (model.first, model.last)]
    for optimizer in optimizers:
        noise_on(optimizer)
    expected, before = clipped(model, rows()), values(model)
    loss(q(rows())).backward()
    optimizers[0].step()
    check_step(model, optimizers[1], before, expected)


def test_noise_stays_private_when_the_module_is_gone():
    model, q, optimizer, _ = private()
    loss(q(rows())).backward()
    del q
    gc.collect()
    optimizer.step()
    optimizer.zero_grad()
    loss(model(rows())).backward()
    refused(model, optimizer, "did not come from a private graph")


def test_what_is_added_when_nobody_watches_is_not_taken_for_ours():
    model, q, optimizer, _ = private()
    loss(q(rows())).backward()
    del q
    gc.collect()
    loss(model(rows())).backward()
    refused(model, optimizer, "did not come from a private graph")


# Steps that call steps


class Calling(torch.optim.SGD):
    """An optimizer whose step calls that of its base class."""

    def step(self, closure=None):
        return super().step(closure)


class CallingTwice(torch.optim.SGD):
    """An optimizer that makes two steps of one."""

    def step(self, closure=None):
        super().step(closure)
        return super().step(closure)


class Failing(torch.optim.SGD):
    """An optimizer whose first step fails."""

    failed = False

    def step(self, closure=None):
        if not self.failed:
            self.failed = True
            raise RuntimeError("no step")
        return super().step(closure)


def test_a_step_that_calls_another_is_noised_once():
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # torch gives the base class hooks at its first instance
    model, q, optimizer, noise = private(Calling)
    for _ in range(2):
        expected, before = clipped(model, rows()), values(model)
        loss(q(rows())).backward()
        check_step(model, optimizer, before, expected)
        refused(model, optimizer, "step before")
        optimizer.zero_grad()
    assert noise.num_steps == 2


def test_a_step_of_two_steps_is_noised_once():
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    model, q, optimizer, noise = private(CallingTwice)
    expected, before = [2 * g for g in clipped(model, rows())], values(model)
    loss(q(rows())).backward()
    check_step(model, optimizer, before, expected)
    assert noise.num_steps == 1


def test_after_a_step_that_failed_new_gradients_get_new_noise():
    model, q, optimizer, noise = private(Failing)
    loss(q(rows())).backward()
    with pytest.raises(RuntimeError, match="no step"):
        optimizer.step()
    optimizer.zero_grad()
    expected, before = clipped(model, rows(5)), values(model)
    loss(q(rows(5))).backward()
    check_step(model, optimizer, before, expected)
    assert noise.num_steps == 2


@pytest.mark.parametrize(("num_parts", "num_rows"), [(1, 9), (5, 1)])
def test_more_is_added_up_than_the_sensitivity_covers(num_parts, num_rows):
    model = nn.Linear(4, 3)
    q = dp_compile(model, "full", max_samples=8, max_parts=4, options=EAGER)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    noise = noise_on(optimizer)
    for _ in range(num_parts):
        q(torch.randn(num_rows, 4)).sum().backward()
    assert "max_samples" in str(
        refused(
            model,
            optimizer,
            rf"{num_rows * num_parts} samples in {num_parts} backwards? were added up; the sensitivity covers 8 ",
        )
    )
    optimizer.zero_grad()
    for _ in range(3):
        for _ in range(4):
            q(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    assert noise.num_steps == 3


@pytest.mark.parametrize("name", ["max_samples", "max_parts"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_how_much_is_added_up_is_a_count(name, value):
    with pytest.raises(ArgumentError, match=name):
        dp_compile(nn.Linear(4, 3), "full", options=EAGER, **{name: value})


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_half_precision_is_rounded_after_the_noise(backend, kind, set_to_none):
    model = nn.Linear(4, 3).bfloat16()
    q = dp_compile(model, "full", options=CompileOptions(backend=backend))
    optimizer = kind(model.parameters(), lr=1e-2)
    noise_on(optimizer)
    for _ in range(2):
        for _ in range(2):
            q(torch.randn(5, 4).bfloat16()).float().sum().backward()
            assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        exact = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        for p, g in zip(model.parameters(), exact, strict=True):
            assert torch.equal(p.grad, g.bfloat16())
        optimizer.zero_grad(set_to_none=set_to_none)
