"""Products of several factors are multiplied in one order, whatever is installed beside torch."""

import types

import pytest
import torch
from torch import nn

from tests.programs.exact import check_exact

FLAGS = torch.backends.opt_einsum
MODULE = FLAGS.m  # what the object that stands for the module in `sys.modules` reads


@pytest.fixture(params=["installed", "installed and off", "not installed"])
def _opt_einsum(request, monkeypatch):
    """A package that, as opt_einsum does, reads the sizes and chooses an order by them."""

    def contract_path(equation, *operands, optimize):
        last_first = int(operands[0].shape[0]) < 30
        pairs = [(len(operands) - 2 - i, len(operands) - 1 - i) for i in range(len(operands) - 1)]
        return (pairs if last_first else [(0, 1)] * len(pairs)), None

    found = request.param != "not installed"
    on = request.param == "installed"
    monkeypatch.setattr(MODULE, "_opt_einsum", types.SimpleNamespace(contract_path=contract_path) if found else None)
    monkeypatch.setattr(MODULE, "is_available", lambda: found)
    monkeypatch.setattr(MODULE, "enabled", on)
    monkeypatch.setattr(MODULE, "strategy", "auto" if found else None)
    yield
    assert FLAGS.enabled == on


class Product(nn.Module):
    def __init__(self, equation, *shapes):
        super().__init__()
        self.equation = equation
        self.factors = nn.ParameterList(torch.randn(shape, dtype=torch.float64) for shape in shapes)

    def forward(self, x):
        return torch.einsum(self.equation, x, *self.factors)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Bilinear(3, 4, 2).double()

    def forward(self, x):
        return self.inner(x[:, :3], x[:, 3:])


@pytest.mark.usefixtures("_opt_einsum")
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: Product("bi,ij,jk->bk", (7, 9), (9, 2)), (5, 7)),
        (lambda: Product("bi,ij,kj->bk", (3, 9), (7, 9)), (5, 3)),
        (lambda: Product("bti,ij,jk,kl->btl", (3, 9), (9, 7), (7, 2)), (4, 2, 3)),
        (Bilinear, (5, 7)),
    ],
)
def test_products_of_several_factors_are_exact(model, shape):
    check_exact(model(), torch.randn(shape, dtype=torch.float64))
