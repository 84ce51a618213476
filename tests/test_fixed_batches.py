"""Physical batches of one size, whose rows of padding leave no trace."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, UnsupportedProgramError, dp_compile
from tests.models.run import Run
from tests.programs.exact import check_exact, squares

FIXED = CompileOptions(backend="eager", batch="fixed")


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_every_smaller_batch_is_exact():
    model = mlp()
    module = dp_compile(model, "full", clipping="auto-v", options=FIXED)
    for num_samples in (5, 3, 1, 0, 5, 2):
        check_exact(model, rows(num_samples, 4), clipping="auto-v", module=module)
        assert module.grad_norms.shape == (num_samples,)


@pytest.mark.parametrize("num_samples", [1, 3, 5])
def test_a_mean_is_one_over_the_samples_alone(num_samples: int):
    model, x = mlp(), rows(num_samples, 4)
    found = []
    for options in (FIXED, CompileOptions(backend="eager")):
        module = dp_compile(model, "full", loss_fn=squares, loss_reduction="mean", options=options)
        module(rows(5, 4))
        losses = module(x)
        assert losses.shape == (num_samples,)
        losses.mean().backward()
        found.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_first_sample_that_is_not_finite_touches_no_other():
    model, x = mlp(), rows(3, 4)
    x[0] = torch.inf
    module = dp_compile(model, "full", clipping="abadi", options=FIXED)
    module(rows(5, 4))
    squares(module(x)).sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    assert module.num_nonfinite == 1
    model.zero_grad()
    squares(module(x[1:])).sum().backward()
    for a, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-12, atol=1e-15)


def test_a_larger_batch_is_refused():
    module = dp_compile(mlp(), "full", options=FIXED, example_inputs=(rows(3, 4),))
    with pytest.raises(ArgumentError, match="fixed at 3"):
        module(rows(4, 4))
    module(rows(2, 4))


def test_a_sum_over_the_samples_is_refused_with_the_first_batch():
    module = dp_compile(Run(lambda m, x: m.layer(x).sum(), layer=nn.Linear(4, 1)).double(), "full", options=FIXED)
    with pytest.raises(UnsupportedProgramError, match="sum over the samples"):
        module(rows(3, 4))


@pytest.mark.inductor
def test_through_inductor():
    model = mlp()
    module = dp_compile(model, "full", clipping="auto-v", options=CompileOptions(batch="fixed"))
    for num_samples in (5, 3, 0):
        check_exact(model, rows(num_samples, 4), clipping="auto-v", module=module)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_replayed_cuda_graphs_add_up_and_are_exact():
    model = mlp().cuda()
    module = dp_compile(model, "full", clipping="auto-v", options=CompileOptions(batch="fixed"))
    batches = [rows(n, 4) for n in (5, 5, 3, 5, 1)]
    for x in batches:
        squares(module(x.cuda()).cpu()).sum().backward()
    found = [p.grad.cpu() for p in model.parameters()]
    twin = mlp()
    twin.load_state_dict({name: x.cpu() for name, x in model.state_dict().items()})
    plain = dp_compile(twin, "full", clipping="auto-v", options=CompileOptions(backend="eager"))
    for x in batches:
        squares(plain(x)).sum().backward()
    for a, p in zip(found, twin.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-12)
