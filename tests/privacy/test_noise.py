"""Noise on the optimizer: its scale, when it is added, what it refuses."""

import copy
import gc
import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpgraph.errors import ArgumentError
from dpgraph.privacy import add_noise_on_step

NUM_DRAWS = 40_000


def make(num=NUM_DRAWS, dtype=torch.float32, seed=0, **changes):
    """A parameter of zeros whose step by SGD at rate 1 leaves minus the noisy mean in it."""
    parameter = nn.Parameter(torch.zeros(num, dtype=dtype))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    settings = {"noise_multiplier": 1.5, "sensitivity": 2.0, "expected_batch_size": 4.0}
    generator = torch.Generator().manual_seed(seed)
    noise = add_noise_on_step(optimizer, **{**settings, "generator": generator, **changes})
    return parameter, optimizer, noise


def assert_normal(values, scale):
    """Mean 0, variance scale^2 and the share within one scale, each within 5 standard deviations of its estimate."""
    values, num = values.detach().double() / scale, values.numel()
    assert abs(float(values.mean())) < 5 / math.sqrt(num)
    # sum of squares is chi-square with num degrees of freedom: mean num, variance 2 num
    assert abs(float(values.square().sum()) - num) < 5 * math.sqrt(2 * num)
    within = float((values.abs() < 1).double().mean())
    assert abs(within - math.erf(math.sqrt(0.5))) < 5 * math.sqrt(0.6827 * 0.3173 / num)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("sigma", "sensitivity", "expected"), [(1.0, 1.0, 1.0), (0.7, 3.0, 256.0)])
def test_scale_is_multiplier_times_sensitivity_over_batch_size(dtype, sigma, sensitivity, expected):
    parameter, optimizer, noise = make(
        dtype=dtype, noise_multiplier=sigma, sensitivity=sensitivity, expected_batch_size=expected
    )
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert noise.scale == sigma * sensitivity
    assert_normal(parameter, sigma * sensitivity / expected)
    assert parameter.dtype == dtype


def test_the_gradient_is_divided_too():
    parameter, optimizer, _ = make(3, noise_multiplier=0.0)
    parameter.grad = torch.tensor([4.0, -8.0, 0.0])
    optimizer.step()
    assert parameter.tolist() == [-1.0, 2.0, 0.0]


def test_sum_and_noise_are_added_before_rounding_to_half_precision():
    # 2048 + 1 is 2048 in float16: a sum taken there would lose the noise
    parameter, optimizer, _ = make(dtype=torch.float16, noise_multiplier=0.5, sensitivity=1.0, expected_batch_size=2048)
    parameter.grad = torch.full_like(parameter, 2048)
    optimizer.step()
    shifted = parameter.detach().double() + 1
    assert 0.5 < float(shifted.std()) * 2048 / 0.5 < 2


def test_no_gradient_is_taken_as_zero_and_the_step_counts():
    parameter, optimizer, noise = make()
    optimizer.step()
    assert_normal(parameter, 0.75)
    assert noise.num_steps == 1


def test_noise_of_steps_and_parameters_is_independent():
    first, second = (nn.Parameter(torch.zeros(NUM_DRAWS)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1.0)
    generator = torch.Generator().manual_seed(1)
    add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1, generator=generator)
    draws = []
    for _ in range(2):
        before = first.detach().clone(), second.detach().clone()
        optimizer.step()
        optimizer.zero_grad()
        draws += [first.detach() - before[0], second.detach() - before[1]]
    correlations = torch.corrcoef(torch.stack(draws)) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(NUM_DRAWS)


def test_a_frozen_parameter_without_gradient_is_left_alone():
    frozen, trained = nn.Parameter(torch.ones(5), requires_grad=False), nn.Parameter(torch.ones(5))
    optimizer = torch.optim.Adam([frozen, trained])
    add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1)
    optimizer.step()
    assert frozen.grad is None
    assert frozen.tolist() == [1.0] * 5
    assert not torch.equal(trained, torch.ones(5))


def test_the_same_generator_gives_the_same_noise_and_entropy_another():
    def stepped(**changes):
        torch.manual_seed(0)
        parameter, optimizer, _ = make(10, **changes)
        optimizer.step()
        return parameter.tolist()

    assert stepped() == stepped()
    assert stepped(generator=None) != stepped(generator=None)


def test_sparse_gradients_become_dense():
    embedding = nn.Embedding(100, 4, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=1.0)
    add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1)
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([3])).sum().backward()
    optimizer.step()
    assert ((embedding.weight - before).abs() > 0).all()


def test_removal_ends_the_noise_and_frees_the_optimizer():
    parameter, optimizer, noise = make(4)
    noise.remove()
    noise.remove()
    parameter.grad = torch.ones(4)
    optimizer.step()
    assert parameter.tolist() == [-1.0] * 4
    assert noise.num_steps == 0
    add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1).remove()


def test_a_second_noise_is_refused():
    _, optimizer, _ = make(4)
    with pytest.raises(ArgumentError, match="has noise already"):
        add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1)


def test_a_gradient_that_was_not_cleared_is_refused_and_nothing_changes():
    parameter, optimizer, noise = make(4)
    optimizer.step()
    before, gradient = parameter.detach().clone(), parameter.grad.clone()
    for _ in range(2):
        with pytest.raises(ArgumentError, match="step before"):
            optimizer.step()
    (parameter.sum() * 2).backward()
    with pytest.raises(ArgumentError, match="zero_grad"):
        optimizer.step()
    assert torch.equal(parameter, before)
    assert torch.equal(parameter.grad, gradient + 2)
    assert noise.num_steps == 1
    optimizer.zero_grad()
    optimizer.step()
    assert noise.num_steps == 2


def test_a_frozen_parameter_with_a_gradient_is_refused_by_name():
    parameter, optimizer, _ = make(4)
    parameter.grad = torch.ones(4)
    parameter.requires_grad_(False)
    with pytest.raises(ArgumentError, match="frozen") as caught:
        optimizer.step()
    assert caught.value.place.parameter == "param_groups[0]['params'][0]"
    assert torch.equal(parameter, torch.zeros(4))


def test_errors_use_the_names_that_the_optimizer_knows():
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.named_parameters(), lr=1.0)
    add_noise_on_step(optimizer, noise_multiplier=1, sensitivity=1, expected_batch_size=1)
    layer.bias.grad = torch.ones(1)
    layer.bias.requires_grad_(False)
    with pytest.raises(ArgumentError) as caught:
        optimizer.step()
    assert caught.value.place.parameter == "bias"


def test_a_closure_is_refused():
    parameter, optimizer, noise = make(4)

    def closure():
        parameter.grad = torch.ones(4)
        return 0.0

    for call in (lambda: optimizer.step(closure), lambda: optimizer.step(closure=closure)):
        with pytest.raises(ArgumentError, match="closure"):
            call()
    assert torch.equal(parameter, torch.zeros(4))
    assert noise.num_steps == 0
    optimizer.step(None)
    assert noise.num_steps == 1


def test_complex_parameters_are_refused():
    parameter, optimizer, _ = make(4, dtype=torch.complex64)
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ArgumentError, match="complex"):
        optimizer.step()


def test_a_copied_optimizer_can_get_its_own_noise():
    _, optimizer, _ = make(4)
    twin = copy.deepcopy(optimizer)
    add_noise_on_step(twin, noise_multiplier=1, sensitivity=1, expected_batch_size=1)


def test_noise_does_not_keep_its_optimizer_alive():
    _, optimizer, noise = make(4)
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    noise.remove()


@given(
    name=st.sampled_from(["noise_multiplier", "sensitivity", "expected_batch_size"]),
    value=st.sampled_from([float("nan"), float("inf"), -1.0, -0.5, None, "1", True]),
)
def test_unusable_arguments_are_named(name, value):
    with pytest.raises(ArgumentError) as caught:
        make(2, **{name: value})
    assert name in caught.value.what
    assert name in caught.value.fix


@pytest.mark.parametrize("name", ["sensitivity", "expected_batch_size"])
def test_zero_is_refused_where_it_means_nothing(name):
    with pytest.raises(ArgumentError, match=name):
        make(2, **{name: 0.0})
