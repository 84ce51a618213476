"""A model of two layers, what `dp_compile` makes of it, and what its gradients have to be."""

import copy

import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, DPModule, dp_compile
from dpgraph.deliveries import Origin, origin

__all__ = ["Net", "build", "check", "check_same", "clipped", "f64", "gradients", "loss", "rows"]

f64 = torch.float64


class Net(nn.Module):
    """Two layers, the first of which can be called alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.last = nn.Linear(5, 3)

    def encode(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encode(x))


def build(backend: str = "eager", **arguments) -> tuple[Net, DPModule]:
    torch.manual_seed(0)
    model = Net().double()
    options = CompileOptions(backend=backend)
    return model, dp_compile(model, "full", clipping="auto-v", options=options, **arguments)


def rows(num: int = 6) -> Tensor:
    return torch.randn(num, 4, dtype=f64, generator=torch.Generator().manual_seed(num))


def loss(y: Tensor) -> Tensor:
    return (y - 0.3).square().sum()


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def clipped(model: nn.Module, *batches: Tensor) -> list[Tensor]:
    """Sums of gradients / norm, by a loop."""
    twin = copy.deepcopy(model)
    total = [torch.zeros_like(p) for p in twin.parameters()]
    for x in torch.cat(batches).split(1):
        found = torch.autograd.grad(loss(twin(x)), list(twin.parameters()))
        norm = torch.sqrt(sum(g.square().sum() for g in found))
        total = [t + g / norm for t, g in zip(total, found, strict=True)]
    return total


def check(model: nn.Module, *batches: Tensor) -> None:
    for p, expected in zip(model.parameters(), clipped(model, *batches), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)
        assert origin(p) is Origin.DELIVERED


def check_same(model: nn.Module, before: list[Tensor | None]) -> None:
    for p, g in zip(model.parameters(), before, strict=True):
        assert (p.grad is None) == (g is None)
        assert g is None or torch.equal(p.grad, g)
