"""Parameters that are parts of one buffer, as cuDNN and Megatron lay them out, are parameters apart."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, dp_compile
from tests.programs.exact import EAGER, check_exact


def flatten(model: nn.Module, order: int = 1) -> Tensor:
    """Make every parameter a view of one buffer, as `_flatten_weights` does on a GPU."""
    parameters = list(model.parameters())[::order]
    buffer = torch.cat([p.detach().flatten() for p in parameters])
    start = 0
    for p in parameters:
        p.data = buffer[start : start + p.numel()].view_as(p)
        start += p.numel()
    return buffer


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_weights_of_a_recurrent_network_in_one_piece(kind, backend):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = kind(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[0]

    model = Net().double()
    flatten(model)
    check_exact(model, torch.randn(4, 3, 3).double(), options=CompileOptions(backend=backend))


@pytest.mark.parametrize("order", [1, -1])
def test_a_model_in_one_flat_buffer_is_trained_in_place(order):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    buffer = flatten(model, order)
    before = buffer.clone()
    check_exact(model, torch.randn(4, 3).double())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(buffer, before)


def test_columns_of_one_matrix_are_parameters_apart():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
    whole = torch.randn(4, 7).double()
    model[0].weight.data, model[1].weight.data = whole[:, :3], whole[:, 3:]
    check_exact(model, torch.randn(4, 3).double())


@pytest.mark.parametrize("shift", [0, 1, 5])
def test_parts_that_overlap_are_refused(shift):
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False))
    buffer = torch.randn(12)
    model[0].weight.data = buffer[:6].view(2, 3)
    model[1].weight.data = buffer[shift : shift + 6].view(3, 2)
    with pytest.raises(ArgumentError, match=r"'0.weight' and '1.weight' share memory"):
        dp_compile(model, "full", options=EAGER)


def test_an_overlap_within_another_one_s_range_is_refused():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False))
    whole = torch.randn(4, 9)
    model[0].weight.data, model[1].weight.data, model[2].weight.data = whole[:, :4], whole[:, 5:], whole[2:3, 1:5]
    with pytest.raises(ArgumentError, match=r"'0.weight' and '2.weight' share memory"):
        dp_compile(model, "full", options=EAGER)


def test_an_overlap_of_other_numbers_is_refused():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False).double())
    buffer = torch.zeros(16)
    model[0].weight.data = buffer[4:8].view(2, 2)
    model[1].weight.data = buffer.view(torch.float64)[:4].view(2, 2)
    with pytest.raises(ArgumentError, match="share memory"):
        dp_compile(model, "full", options=EAGER)


def test_frozen_parameters_may_share_memory():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data = model[0].weight.data
    dp_compile(model, "bitfit", options=EAGER)
