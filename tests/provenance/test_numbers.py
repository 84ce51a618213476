"""Numbers and sizes: shared if they come from shared values or sizes of inputs, refused if samples decide them."""

import pytest
import torch

from dpgraph.provenance.lattice import PerSample, Refused, Shared
from tests.provenance.analysed import B, analyse, samples, shared

X = samples(B, 4)
COUNTS = shared(3, integers=4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, n: x * n.sum().item(),
        lambda x, n: x[:, : n.sum().item()],
        lambda x, n: x * x[:, : n.sum().item()].shape[1],
        lambda x, n: x * n.nonzero().shape[0],
        lambda x, n: x[:, torch.tensor([True, False, True, True])] * n.nonzero().shape[0],
        lambda x, n: x * torch.arange(n.amax().item()).sum(),
        lambda x, n: x * torch.full((), n.amax().item() // 2),
        lambda x, n: x * torch.repeat_interleave(n, n).shape[0],
        lambda x, n: x * x.shape[1],
        lambda x, n: x * (n.sum().item() / x.shape[1]) ** 2,
    ],
)
def test_numbers_of_shared_values_are_shared(function):
    (found,) = analyse(function, [X, COUNTS])
    assert found == PerSample(0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, n: n * (x > 0).sum().item(),
        lambda x, n: n * (x > 0).nonzero().shape[0],
        lambda x, n: n * (x > 0).nonzero().numel(),
        lambda x, n: n * torch.unique(x).shape[0],
        lambda x, n: n * x[:, : (x > 0).sum().item()].shape[1],
        lambda x, n: n * torch.repeat_interleave(n, (x[0] > 0).sum().expand(3)).shape[0],
        lambda x, n: torch.full((3,), x.sum().item()),
        lambda x, n: torch.full_like(n, (x > 0).sum().item()),
        lambda x, n: torch.zeros((x > 0).sum().item()),
        lambda x, n: torch.arange((x > 0).sum().item()),
        lambda x, n: torch.randint(0, (x > 0).sum().item(), (3,)),
        lambda x, n: torch.randint((x > 0).sum().item(), (3,)),
        lambda x, n: n * ((x > 0).sum().item() // 2 + x.shape[1]),
        lambda x, n: n[: (x > 0).sum().item()],
        lambda x, n: n.expand((x > 0).sum().item(), 3),
    ],
)
def test_numbers_that_samples_decide_are_refused(function):
    (found,) = analyse(function, [X, COUNTS])
    assert isinstance(found, Refused)
    assert found.kind == "mixes"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, n: n * torch.full((), x.shape[0]).item(),
        lambda x, n: n * torch.ones(x.shape[0]).nonzero().shape[0],
        lambda x, n: n * n.repeat_interleave(torch.full((3,), x.shape[0])).shape[0],
        lambda x, n: n * x[: n.sum().item()].shape[0],
        lambda x, n: torch.randint(0, x.shape[0], (3,)),
        lambda x, n: torch.randint(x.shape[0], (3,)),
    ],
)
def test_the_number_of_samples_is_no_public_number(function):
    (found,) = analyse(function, [X, COUNTS])
    assert isinstance(found, Refused)


def test_a_count_in_a_shape_alone_may_be_sound_and_as_a_number_mixes():
    found, read = analyse(lambda x: (torch.zeros_like(c := x[x > 0]), x * c.shape[0]), [X])
    assert isinstance(found, Refused)
    assert isinstance(read, Refused)
    assert (found.kind, read.kind) == ("unshown", "mixes")
    assert found.origin is read.origin


def test_a_shape_alone_is_no_value():
    made = analyse(lambda x: (torch.zeros_like(x.flip(0)), torch.rand_like(x.flip(0))), [X])
    assert all(isinstance(p, PerSample) and p.exchangeable for p in made)
    (found,) = analyse(lambda x, n: torch.zeros(n.sum().item()).sum(), [X, COUNTS])
    assert found == Shared()
