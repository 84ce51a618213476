"""What is drawn at random is drawn once: a backward differentiates the function that the forward computed."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from dpgraph import CompileOptions, dp_compile
from tests.oracle.comparison import relative_errors
from tests.oracle.loop import PerSampleGradients
from tests.programs.exact import squares
from tests.programs.several import Several

B, D = 5, 8


def noisy(draw):
    """A program that is linear in its weight: the gradient can be read off the outputs."""
    return lambda w, x: x.sin() * w * draw(x * w)


def checkpointed(w, x):
    return checkpoint(lambda z: F.dropout(z.sin(), 0.5) * w, x, use_reentrant=False)


def deep(w, x):
    h = x
    for _ in range(3):
        h = F.dropout(h.sin(), 0.3)
    return h * w


LINEAR = {
    "dropout": lambda w, x: F.dropout(x.sin() * w, 0.5),
    "dropout_of_features": lambda w, x: F.dropout1d((x * w).unsqueeze(2), 0.5).squeeze(2),
    "bernoulli": noisy(lambda y: torch.bernoulli(torch.full_like(y, 0.5))),
    "rand_like": noisy(torch.rand_like),
    "randn_like": noisy(torch.randn_like),
    "randn_for_all": noisy(lambda y: torch.randn(D, dtype=torch.float64)),
    "randint": noisy(lambda y: torch.randint(1, 9, y.shape).double()),
    "exponential": noisy(lambda y: torch.empty_like(y).exponential_()),
    "uniform": noisy(lambda y: torch.empty_like(y).uniform_(1, 2)),
    "checkpointed": checkpointed,
    "deep": deep,
}


def attention(w, x):
    q = (x * w).reshape(-1, 1, 4, 2)
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5).flatten(1)


def checkpointed_twice(w, x):
    h = checkpoint(lambda z: F.dropout(z * w, 0.5).sin(), x, use_reentrant=False)
    return checkpoint(lambda z: F.dropout(z * w, 0.3).cos(), h, use_reentrant=False)


def dropped_in_between(w, x):
    h = x
    for _ in range(3):
        h = F.dropout((h * w).sin(), 0.3)
    return h.cos()


OTHERS = {
    "gumbel": lambda w, x: F.gumbel_softmax(x * w).square(),
    "hard_gumbel": lambda w, x: F.gumbel_softmax(x * w, hard=True) * w,
    "randomized_relu": lambda w, x: F.rrelu(x * w, training=True).cos(),
    "alpha_dropout": lambda w, x: F.alpha_dropout(x * w, 0.5).sin(),
    "attention": attention,
    "checkpointed_twice": checkpointed_twice,
    "dropped_in_between": dropped_in_between,
}


def one_step(programs, backend, memory_budget):
    """Outputs and gradients of a step, in which forward and backward begin with the same seeds each time."""
    torch._dynamo.reset()
    model = Several(programs, (D,))
    options = CompileOptions(backend=backend, memory_budget=memory_budget)
    module = dp_compile(model, "full", clipping="abadi", options=options)
    torch.manual_seed(1)
    outputs = module(torch.linspace(-2, 2, B * D, dtype=torch.float64).reshape(B, D))
    torch.manual_seed(2)
    squares(outputs).sum().backward()
    return model, outputs.detach(), {name: p.grad for name, p in model.named_parameters()}


def check_linear(programs, backend, memory_budget):
    model, outputs, found = one_step(programs, backend, memory_budget)
    outputs.requires_grad_()
    (tangents,) = torch.autograd.grad(squares(outputs).sum(), outputs)
    parts = dict(zip(programs, (tangents * outputs.detach()).split(D, 1), strict=True))
    samples = PerSampleGradients(
        {name: p.shape for name, p in model.named_parameters()},
        tuple({name: parts[name][b] / p.detach() for name, p in model.named_parameters()} for b in range(B)),
    )
    errors = relative_errors(found, samples.clipped_sum({"all": list(parts)}, "abadi", 1.0))
    assert max(errors.values()) < 1e-11, errors


def check_same(programs, backend, memory_budgets):
    _, outputs, gradients = one_step(programs, backend, 1.0)
    for budget in memory_budgets:
        _, again, found = one_step(programs, backend, budget)
        torch.testing.assert_close(again, outputs, rtol=1e-12, atol=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-12, msg=f"{name} at {budget}")


@pytest.mark.parametrize("memory_budget", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("name", LINEAR)
def test_the_gradient_is_that_of_the_outputs(name, memory_budget):
    check_linear({name: LINEAR[name]}, "eager", memory_budget)


@pytest.mark.parametrize("name", OTHERS)
def test_no_budget_changes_a_result(name):
    check_same({name: OTHERS[name]}, "eager", (0.3, 0.0))


@pytest.mark.inductor
@pytest.mark.parametrize("memory_budget", [1.0, 0.3, 0.0])
def test_the_gradient_is_that_of_the_outputs_through_inductor(memory_budget):
    check_linear(LINEAR, "inductor", memory_budget)


@pytest.mark.inductor
def test_no_budget_changes_a_result_through_inductor():
    check_same(OTHERS, "inductor", (0.0,))
