"""What rounding does to sums: to the terms of one sample that cancel in them, and to the sum over many samples."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import CompileOptions, dp_compile

BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.inductor)]
R = 0.7  # what is clipped to R = 1 is rounded to it, and not beyond


class Uses(nn.Module):
    """losses [B] = sum over uses t of f(w, x_t) . c_t."""

    def __init__(self, shape, use, dtype=torch.float32) -> None:
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.zeros(shape, dtype=dtype)), use

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.use(self.weight, x, c)


def several_biases(w, x, c):
    return sum((w * c[:, t]).sum(1) for t in range(c.shape[1]))


def several_products(w, x, c):
    return sum((F.linear(x[:, t], w) * c[:, t]).sum(1) for t in range(c.shape[1]))


def looked_up(w, x, c):
    return (F.embedding(x[..., 0].long() * 0, w) * c).sum((1, 2))


def one_product(w, x, c):
    return (F.linear(x, w) * c).sum((1, 2))


def in_groups(w, x, c):
    return (F.conv1d(x.mT, w, groups=2) * c.mT).sum((1, 2))


OPPOSITE = {
    "bias": ((3,), several_biases, 2),
    "product": ((2, 2), several_products, 2),
    "many products": ((4, 4), several_products, 8),
    "row": ((4, 4), looked_up, 2),
    "positions": ((4, 4), one_product, 3),
    "wide": ((24, 20), one_product, 40),
    "convolution in groups": ((4, 4, 1), in_groups, 2),
}


def opposite(t: int, p: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [1, T, d] of ones, and c [1, T, p] that nearly cancels over T."""

    def draw() -> float:
        return torch.rand((), generator=generator).item()

    size = (1 + draw()) * 10 ** (4.5 + 3 * draw())
    c = torch.cat([torch.ones(t // 2), -torch.ones(t - t // 2)]).double()
    c = (c * size * (1 + torch.rand(t, generator=generator))).float()
    c[-1] = (30 * draw() - c[:-1].double().sum()).float()
    return torch.ones(1, t, d), c.reshape(1, t, 1).expand(1, t, p).contiguous()


def added(module: nn.Module, *inputs: Tensor) -> float:
    """What the samples add, in units of what one may."""
    module.zero_grad()
    module(*inputs).sum().backward()
    return module.weight.grad.double().norm().item() / module.sensitivity


@pytest.mark.parametrize(
    ("backend", "strategy"),
    [("eager", "ghost"), ("eager", "materialise"), pytest.param("inductor", "ghost", marks=pytest.mark.inductor)],
)
@pytest.mark.parametrize("name", OPPOSITE)
def test_terms_of_a_sample_that_cancel(name, strategy, backend):
    """The norm is exact, and says little of what float32 leaves of such a sum."""
    shape, use, length = OPPOSITE[name]
    options = CompileOptions(backend=backend, norm_strategy=strategy)
    for clipping in ("auto-s",) if backend == "inductor" else ("auto-s", "abadi"):
        model = Uses(shape, use)
        module = dp_compile(
            model, "full", clipping=clipping, max_grad_norm=R, max_samples=1, max_parts=1, options=options
        )
        generator = torch.Generator().manual_seed(0)
        columns = 8 if use is in_groups else shape[-1]
        tried = [
            added(module, *opposite(length, shape[0] if use is not looked_up else 4, columns, generator))
            for _ in range(60)
        ]
        assert max(tried) <= 1
        assert module.num_nonfinite == 0


def hovering(num_samples: int, length: int) -> tuple[Tensor, Tensor]:
    """Terms [n, T] of samples of norm 1 at most whose sum stays beside 2^k, below which it rounds another way.

    The first ones bring the sum there. The others go up and down by a quarter and three quarters of what rounds.
    """
    half = num_samples // 2
    terms = torch.zeros(num_samples, length, dtype=torch.float64)
    terms[1 : half + 1, 0] = 1
    ulp = 2.0**-23 * half
    pattern = torch.tensor([0.26, -0.24]).double() * ulp
    terms[half + 1 :] = pattern.repeat((length + 1) // 2)[:length]
    terms[half + 1 :, 0] += pattern[0]
    with_first = terms.clone()
    with_first[0, 0] = 1
    return with_first.float(), terms.float()


MANY = {
    "bias": lambda v: ((3,), several_biases, torch.ones(*v.shape, 1), v[..., None].expand(-1, -1, 3)),
    "row": lambda v: ((4, 3), looked_up, torch.ones(*v.shape, 1), v[..., None].expand(-1, -1, 3)),
    "thin": lambda v: ((1, 8), one_product, torch.ones(*v.shape, 8), v[..., None]),
    "wide": lambda v: ((24, 20), one_product, torch.ones(*v.shape, 20), v[..., None].expand(-1, -1, 24)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "num_samples", "length"),
    [
        ("bias", 1024, 1),
        ("row", 1024, 1),
        ("row", 64, 512),
        ("row", 1024, 64),
        ("thin", 1024, 1),
        ("thin", 64, 512),
        ("wide", 1024, 8),
    ],
)
def test_one_sample_decides_how_the_others_are_rounded(name, num_samples, length, backend):
    found = []
    for terms in hovering(num_samples, length):
        shape, use, x, c = MANY[name](terms)
        if not found:
            options = CompileOptions(backend=backend, norm_strategy="ghost", verify="never")
            module = dp_compile(
                Uses(shape, use), "full", clipping="abadi", max_samples=num_samples, max_parts=1, options=options
            )
        module.zero_grad()
        module(x, c.contiguous()).sum().backward()
        found.append(module.weight.grad.double())
    assert (found[0] - found[1]).norm().item() <= module.sensitivity


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_around_the_backward_alone(backend):
    module = dp_compile(Uses((20, 24), one_product), "full", clipping="auto-v", options=CompileOptions(backend=backend))
    x, c = 1 + torch.rand(5, 4, 24), 1 + torch.rand(5, 4, 20)
    module(x, c).sum().backward()
    expected = module.weight.grad.clone()
    module.zero_grad()
    loss = module(x, c).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()
    assert torch.equal(module.weight.grad, expected)
