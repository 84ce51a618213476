"""Operators that are taken apart here are what torch makes of them, in every dtype."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from dpgraph.decompositions import OWN_DECOMPOSITIONS
from tests.programs.exact import EAGER, INDUCTOR

index_add = OWN_DECOMPOSITIONS[torch.ops.aten.index_add.default]
SHAPES = {"inner": ((3, 4, 5), 1, 2), "last": ((3, 4, 5), -1, 7), "vector": ((3,), 0, 2), "nothing": ((3, 4), 0, 0)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
@pytest.mark.parametrize("alpha", [1, 2])
@pytest.mark.parametrize(("shape", "dim", "count"), SHAPES.values(), ids=SHAPES)
def test_index_add(shape, dim, count, alpha, dtype):
    rows = list(shape)
    rows[dim] = count
    x, source = ((5 * torch.randn(size)).to(dtype) for size in (shape, rows))
    index = torch.randint(0, shape[dim], (count,))
    expected = x.index_add(dim, index, source, alpha=alpha)
    torch.testing.assert_close(index_add(x, dim, index, source, alpha=alpha), expected)


def test_index_add_of_a_number():
    x, source, index = torch.tensor(1.0), torch.tensor(2.0), torch.tensor([0])
    torch.testing.assert_close(index_add(x, 0, index, source), x.index_add(0, index, source))


class Picks(nn.Module):
    """Columns by their numbers, one of them twice, as relative positions are: their gradient is an `index_add`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).index_select(1, torch.tensor([0, 2, 2, 5])).float().sin().sum(1)


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_columns_by_number_in_bfloat16(options):
    model = Picks().bfloat16()
    model.layer.weight.data.copy_(torch.randint(-2, 3, (6, 4)))
    x = torch.randint(-2, 3, (5, 4)).bfloat16()
    module = dp_compile(model, "full", clipping="abadi", max_grad_norm=1e6, options=options)
    module(x).sum().backward()
    exact = Picks()
    exact.load_state_dict(model.state_dict())
    exact(x.float()).sum().backward()
    torch.testing.assert_close(model.layer.weight.grad.float(), exact.layer.weight.grad, rtol=0.02, atol=0.1)
