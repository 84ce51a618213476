"""Whatever is in `p.grad` came from a private graph, once, or there is an error and it is as it was."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from dpgraph import ArgumentError
from dpgraph.deliveries import Origin, origin
from tests.lower.delivering import build, check, check_same, clipped, f64, gradients, loss, rows

# Each runs on both backends, with gradients cleared.


def one_backward(model, q):
    loss(q(rows())).backward()
    check(model, rows())
    assert q.grad_norms.shape == (6,)


def accumulation_over_parts(model, q):
    for x in rows().split([3, 1, 2]):
        loss(q(x)).backward()
    check(model, rows())


def two_calls_in_one_backward(model, q):
    (loss(q(rows(5))) + loss(q(rows(6)))).backward()
    check(model, rows(5), rows(6))


def zeroed_in_place(model, q):
    for _ in range(2):
        loss(q(rows())).backward()
        check(model, rows())
        for p in model.parameters():
            p.grad.zero_()


def gradients_edited_in_place(model, q):
    loss(q(rows())).backward()
    clip_grad_norm_(model.parameters(), 1e-3)
    assert all(origin(p) is Origin.DELIVERED for p in model.parameters())


def gradients_of_some_parameters(model, q):
    loss(q(rows())).backward(inputs=[model.last.weight])
    torch.testing.assert_close(model.last.weight.grad, clipped(model, rows())[2])
    assert model.first.weight.grad is None


def gradients_that_are_returned(model, q):
    found = torch.autograd.grad(loss(q(rows())), list(model.parameters()))
    torch.testing.assert_close(list(found), clipped(model, rows()))
    assert all(p.grad is None for p in model.parameters())


def gradients_of_the_inputs(model, q):
    x = rows().requires_grad_()
    loss(q(x)).backward()
    check(model, rows())
    torch.testing.assert_close(x.grad, torch.autograd.grad(loss(model(x)), x)[0])


def a_checkpoint(model, q):
    for reentrant in (False, True):
        model.zero_grad()
        loss(checkpoint(q, rows().requires_grad_(), use_reentrant=reentrant)).backward()
        check(model, rows())


def a_generator_before(model, q):
    """A generator that is trained through a private discriminator gets its own gradient, and it alone is stepped."""
    generator = nn.Linear(4, 4).double()
    loss(q(generator(rows()))).backward()
    expected = torch.autograd.grad(loss(model(generator(rows()))), list(generator.parameters()))
    torch.testing.assert_close([p.grad for p in generator.parameters()], list(expected))
    model.requires_grad_(False)  # as many do for the generator's step
    generator.zero_grad()
    loss(q(generator(rows()))).backward()
    torch.testing.assert_close([p.grad for p in generator.parameters()], list(expected))
    model.requires_grad_(True)
    model.zero_grad()
    loss(q(rows())).backward()
    check(model, rows())


def computed_parameters(model, q):
    scale = torch.ones((), dtype=f64, requires_grad=True)
    computed = {name: p * scale for name, p in model.named_parameters()}
    loss(torch.func.functional_call(q, computed, (rows(),))).backward()
    for p, expected in zip(model.parameters(), clipped(model, rows()), strict=True):
        torch.testing.assert_close(p.grad, expected)
        assert origin(p) is Origin.FOREIGN  # what was bounded is another parameter's gradient
    assert scale.grad is not None


def other_leaves_as_parameters(model, q):
    others = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    loss(torch.func.functional_call(q, others, (rows(),))).backward()
    torch.testing.assert_close([p.grad for p in others.values()], clipped(model, rows()))
    assert all(p.grad is None for p in model.parameters())


def ordinary_training_of_the_model(model, q):
    loss(model(rows())).backward()
    expected = torch.autograd.grad(loss(model(rows())), list(model.parameters()))
    torch.testing.assert_close([p.grad for p in model.parameters()], list(expected))


def ordinary_training_after_clearing_in_place(model, q):
    loss(q(rows())).backward()
    for p in model.parameters():
        p.grad.zero_()
    ordinary_training_of_the_model(model, q)


def a_second_backward(model, q):
    total = loss(q(rows()))
    total.backward(retain_graph=True)
    before, norms = gradients(model), q.grad_norms.clone()
    with pytest.raises(ArgumentError, match="second backward"):
        total.backward()
    check_same(model, before)
    assert torch.equal(q.grad_norms, norms)


def two_losses_of_one_call(model, q):
    y = q(rows())
    y.sum().backward(retain_graph=True)
    before = gradients(model)
    with pytest.raises(ArgumentError, match="second backward"):
        y.square().sum().backward()
    check_same(model, before)


def a_call_after_one_that_failed(model, q):
    a_second_backward(model, q)
    model.zero_grad()
    one_backward(model, q)


def a_part_called_alone(model, q):
    with pytest.raises(ArgumentError, match="past the private graph"):
        (loss(q(rows())) + q.encode(rows()).sum()).backward()
    assert all(p.grad is None for p in model.parameters())


def a_part_called_alone_before(model, q):
    q.encode(rows()).sum().backward()
    before = gradients(model)
    with pytest.raises(ArgumentError, match="did not come from a private graph"):
        loss(q(rows())).backward()
    check_same(model, before)


def a_part_called_alone_after(model, q):
    loss(q(rows())).backward()
    before = gradients(model)
    with pytest.raises(ArgumentError, match="past the private graph") as caught:
        q.last(torch.ones(2, 5, dtype=f64)).sum().backward()
    assert caught.value.place.parameter in ("last.weight", "last.bias")
    check_same(model, before)


def a_parameter_used_outside(model, q):
    with pytest.raises(ArgumentError, match="past the private graph"):
        (q(rows()) @ model.last.weight).sum().backward()
    assert all(p.grad is None for p in model.parameters())


def a_penalty_on_parameters(model, q):
    with pytest.raises(ArgumentError, match="weight decay"):
        (loss(q(rows())) + sum(p.square().sum() for p in model.parameters())).backward()
    assert all(p.grad is None for p in model.parameters())


def a_penalty_of_zero(model, q):
    (loss(q(rows())) + 0.0 * sum(p.square().sum() for p in model.parameters())).backward()
    check(model, rows())


def both_in_turns(model, q):
    loss(model(rows())).backward()
    model.zero_grad()
    loss(q(rows())).backward()
    check(model, rows())
    model.zero_grad()
    loss(model(rows())).backward()


def gradients_set_by_hand(model, q):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = gradients(model)
    with pytest.raises(ArgumentError, match="did not come from a private graph"):
        loss(q(rows())).backward()
    check_same(model, before)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    loss(q(rows())).backward()
    check(model, rows())


def a_backward_with_a_graph(model, q):
    with pytest.raises(ArgumentError, match="create_graph"):
        loss(q(rows())).backward(create_graph=True)
    assert all(p.grad is None for p in model.parameters())


def a_gradient_penalty(model, q):
    x = rows().requires_grad_()
    (slope,) = torch.autograd.grad(loss(q(x)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        slope.square().sum().backward()
    assert all(p.grad is None for p in model.parameters())


def a_gradient_penalty_of_the_model(model, q):
    x = rows().requires_grad_()
    (slope,) = torch.autograd.grad(loss(model(x)), x, create_graph=True)
    with pytest.raises(ArgumentError, match="past the private graph"):
        (loss(q(rows())) + slope.square().sum()).backward()
    assert all(p.grad is None for p in model.parameters())


def a_hook_on_a_parameter(model, q):
    for register in (
        lambda p: p.register_hook(lambda g: 10 * g),
        lambda p: p.register_post_accumulate_grad_hook(lambda p: None),
    ):
        handle = register(model.last.weight)
        with pytest.raises(ArgumentError, match="hook") as caught:
            q(rows())
        assert caught.value.place.parameter == "last.weight"
        handle.remove()
        total = loss(q(rows()))
        handle = register(model.last.weight)
        with pytest.raises(ArgumentError, match="hook"):
            total.backward()
        handle.remove()
        assert all(p.grad is None for p in model.parameters())


def a_compiled_backward(model, q):
    total = loss(q(rows()))
    with (
        torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")),
        pytest.raises(ArgumentError, match="compiled_autograd"),
    ):
        total.backward()
    assert all(p.grad is None for p in model.parameters())


CASES = (
    one_backward,
    accumulation_over_parts,
    two_calls_in_one_backward,
    zeroed_in_place,
    gradients_edited_in_place,
    gradients_of_some_parameters,
    gradients_that_are_returned,
    gradients_of_the_inputs,
    a_checkpoint,
    a_generator_before,
    computed_parameters,
    other_leaves_as_parameters,
    ordinary_training_of_the_model,
    ordinary_training_after_clearing_in_place,
    a_second_backward,
    two_losses_of_one_call,
    a_call_after_one_that_failed,
    a_part_called_alone,
    a_part_called_alone_before,
    a_part_called_alone_after,
    a_parameter_used_outside,
    a_penalty_on_parameters,
    a_penalty_of_zero,
    both_in_turns,
    gradients_set_by_hand,
    a_backward_with_a_graph,
    a_gradient_penalty,
    a_gradient_penalty_of_the_model,
    a_hook_on_a_parameter,
    a_compiled_backward,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_op_by_op(case):
    with torch._functorch.config.patch(donated_buffer=False):  # or torch itself refuses to retain graphs
        case(*build())


@pytest.mark.inductor
@pytest.mark.slow
def test_through_inductor():
    """All cases with one module, so that little is compiled."""
    with torch._functorch.config.patch(donated_buffer=False):
        model, q = build("inductor")
        for case in CASES:
            model.zero_grad()
            case(model, q)
