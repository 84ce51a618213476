"""R is an input of the compiled graphs: it may change between two steps, and what follows from it changes with it."""

import copy
import math

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, AutoS, dp_compile
from dpgraph.privacy import add_noise_on_step
from tests.programs.exact import EAGER, INDUCTOR, check_exact, squares

BACKENDS = [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)]
IDS = ["eager", "inductor"]


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def compiled_frames() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("options", BACKENDS, ids=IDS)
def test_a_bound_changes_without_compiling(options):
    model, x = layers(), torch.randn(6, 4, dtype=torch.float64)
    module = dp_compile(model, "full", grouping="per-layer", max_grad_norm=1.0, options=options)
    check_exact(model, x, grouping="per-layer", module=module)
    frames, sensitivity = compiled_frames(), module.sensitivity
    for bound in (0.25, 3, 1e-3, 1e4):
        module.max_grad_norm = bound
        assert module.max_grad_norm == bound
        assert module.sensitivity == pytest.approx(bound * sensitivity, rel=1e-12)
        check_exact(model, x, grouping="per-layer", max_grad_norm=bound, module=module)
        assert module.certificate.max_grad_norm == bound
        assert module.certificate.sensitivity == module.sensitivity
    assert compiled_frames() == frames
    assert len(module._calls.compiler.rewritings) == 1


@pytest.mark.parametrize("clipping", ["auto-v", "abadi"])
def test_every_clipping_function_has_it_as_an_input(clipping):
    model, x = layers(), torch.randn(6, 4, dtype=torch.float64)
    module = dp_compile(model, "full", clipping=clipping, grouping="per-param", options=EAGER)
    for bound in (1.0, 0.01, 20.0):
        module.max_grad_norm = bound
        check_exact(model, x, grouping="per-param", clipping=clipping, max_grad_norm=bound, module=module)
    assert len(module._calls.compiler.rewritings) == 1


def test_bounds_far_from_one_are_compiled_for():
    model, x = layers(), torch.randn(6, 4, dtype=torch.float64)
    module = dp_compile(model, "full", options=EAGER)
    for bound in (1.0, 1e-30, 1e30, 1e-30, 0.5):
        module.max_grad_norm = bound
        check_exact(model, x, max_grad_norm=bound, module=module)


def test_the_bound_of_the_forward_is_the_bound_of_its_backward():
    model, x = layers(), torch.randn(6, 4, dtype=torch.float64)
    module = dp_compile(model, "full", options=EAGER)
    check_exact(model, x, module=module)
    expected = [p.grad.clone() for p in model.parameters()]
    module.zero_grad()
    loss = squares(module(x)).sum()
    module.max_grad_norm = 5.0
    loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected)


@pytest.mark.parametrize("value", [0, -1.0, 1e-40, 1e40, math.nan, math.inf, True, "1", None])
def test_what_is_no_bound_changes_nothing(value):
    module = dp_compile(layers(), "full", max_grad_norm=0.7, options=EAGER)
    with pytest.raises(ArgumentError, match="max_grad_norm"):
        module.max_grad_norm = value
    assert module.max_grad_norm == 0.7


def test_copies_have_bounds_of_their_own():
    module = dp_compile(layers(), "full", options=EAGER)
    module.max_grad_norm = 2.0
    twin = copy.deepcopy(module)
    module.max_grad_norm = 3.0
    assert twin.max_grad_norm == 2.0
    check_exact(twin.original_module, torch.randn(3, 4, dtype=torch.float64), max_grad_norm=2.0, module=twin)


@pytest.mark.parametrize("gamma", [1e-4, 1.0])
def test_the_stability_constant_can_be_set(gamma):
    model, x = layers(), torch.randn(6, 4, dtype=torch.float64)
    module = dp_compile(model, "full", clipping=AutoS(gamma=gamma), options=EAGER)
    module(x).square().sum().backward()
    found = [p.grad for p in model.parameters()]
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for sample in x:
        gradients = torch.autograd.grad(model(sample[None]).square().sum(), list(model.parameters()))
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for total, g in zip(expected, gradients, strict=True):
            total += g / (norm + gamma)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert f"AutoS(gamma={gamma})" in str(module.certificate)
    assert not any("declares" in line for line in module.certificate.trusted)


class Branching:
    """A clipping function that takes R for a number."""

    def factor(self, norm, max_norm):
        return max_norm / (norm + max(0.01, max_norm))

    def bound(self, max_norm):
        return max_norm


def test_a_clipping_function_computes_with_tensors():
    with pytest.raises(ArgumentError, match="Branching cannot compute factors") as caught:
        dp_compile(layers(), "full", clipping=Branching(), options=EAGER)
    assert "torch.maximum" in caught.value.fix


def make_private(sensitivity=None, **settings):
    model = nn.Linear(4, 2)
    module = dp_compile(model, "full", options=EAGER, **settings)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    given = module if sensitivity is None else sensitivity
    generator = torch.Generator().manual_seed(0)
    noise = add_noise_on_step(
        optimizer, noise_multiplier=1.0, sensitivity=given, expected_batch_size=1.0, generator=generator
    )
    return module, optimizer, noise


def step(module, optimizer, *bounds):
    """One step on as many parts as there are bounds; how far the parameters move."""
    optimizer.zero_grad()
    for bound in bounds:
        module.max_grad_norm = bound
        module(torch.zeros(3, 4)).sum().backward()
    before = torch.cat([p.detach().flatten() for p in module.parameters()])
    optimizer.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()]) - before


def test_the_noise_follows_the_bound():
    module, optimizer, noise = make_private(max_grad_norm=1e-6)
    step(module, optimizer, 1e-6)
    assert noise.scale == noise.sensitivity == module.sensitivity
    state = noise._generator.get_state()
    small = step(module, optimizer, 1e3)
    noise._generator.set_state(state)
    large = step(module, optimizer, 1e6)
    # the clipped gradients follow it too, so that all is larger by as much
    torch.testing.assert_close(large, 1e3 * small, rtol=1e-3, atol=1e3)
    assert noise.scale == pytest.approx(1e6, rel=0.02)


def test_the_noise_of_a_step_is_that_of_its_largest_part():
    module, optimizer, noise = make_private()
    noise.noise_multiplier = 100.0
    state = noise._generator.get_state()
    only_large = step(module, optimizer, 50.0)
    noise._generator.set_state(state)
    both = step(module, optimizer, 50.0, 0.5)
    assert (both - only_large).norm() < 10 * 50 < only_large.norm()


def test_noise_for_a_smaller_bound_is_refused():
    module, optimizer, noise = make_private(sensitivity=1.02)
    step(module, optimizer, 1.0)
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(ArgumentError, match=r"scaled to a sensitivity of 1\.02") as caught:
        step(module, optimizer, 1.1)
    assert "sensitivity=model" in caught.value.fix
    assert caught.value.place.parameter
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    assert noise.num_steps == 1
    step(module, optimizer, 0.5)
