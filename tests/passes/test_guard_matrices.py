"""A matrix that has no decomposition concerns its own sample: the others are trained on as without it."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact


def symmetric(a: Tensor) -> Tensor:
    return a @ a.mT + torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=a.dtype))


FUNCTIONS = {
    "eigenvalues": lambda a: torch.linalg.eigvalsh(symmetric(a)),
    "eigenvectors": lambda a: torch.linalg.eigh(symmetric(a)).eigenvectors.square().flatten(1),
    "singular values": lambda a: torch.linalg.svdvals(a),
    "singular vectors": lambda a: torch.linalg.svd(a, full_matrices=False).U.square().flatten(1),
    "nuclear norm": lambda a: torch.linalg.matrix_norm(a, "nuc")[:, None],
    "condition": lambda a: torch.linalg.cond(a)[:, None].log(),
}


class Program(nn.Module):
    """A function of a matrix for each sample."""

    def __init__(self, function) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(9, 9), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x).view(-1, 3, 3))


def gradients(module, x: Tensor) -> list[Tensor]:
    module.zero_grad()
    module(x).sum().backward()
    return [p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_it_is_exact(function):
    torch.manual_seed(0)
    check_exact(Program(function).double(), torch.randn(4, 9, dtype=torch.float64), tolerance=1e-8)


def check_one_sample(function, value: float, options: CompileOptions) -> None:
    torch.manual_seed(0)
    module = dp_compile(Program(function).double(), "full", options=options)
    x = torch.randn(5, 9, dtype=torch.float64)
    expected = gradients(module, x[[0, 1, 3, 4]])
    x[2, 0] = value
    outputs = module(x)
    assert torch.isfinite(outputs).flatten(1).all(1).tolist() == [True, True, False, True, True]
    torch.testing.assert_close(gradients(module, x), expected, rtol=1e-9, atol=1e-12)
    assert int(module.num_nonfinite) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_a_sample_stops_nobody_else(function, value):
    check_one_sample(function, value, EAGER)


def test_nor_in_compiled_code():
    def together(a: Tensor) -> Tensor:
        return torch.cat([f(a) for name, f in FUNCTIONS.items() if name != "condition"], 1)

    check_one_sample(together, float("nan"), CompileOptions(backend="inductor"))


@pytest.mark.parametrize("function", [torch.linalg.svdvals, lambda h: torch.linalg.eigvalsh(h.mT @ h)])
def test_a_matrix_of_several_samples_is_refused_as_ever(function):
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            return h * function(h).sum()

    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(Mixing(), "full", options=EAGER)(torch.randn(6, 4))
    assert caught.value.place.line.filename == __file__
