"""A joint graph in which something is written in place is refused, whoever put the write there."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from dpgraph.capture.in_place import refuse_writes_in_place
from dpgraph.errors import UnsupportedProgramError


def graph_of(function):
    return make_fx(function)(torch.ones(3), torch.ones(3)).graph


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x.copy_(y),
        lambda x, y: x.add_(1) * y,
        lambda x, y: x[1:].fill_(2.0),
        lambda x, y: torch.mul(x, y, out=y),
        lambda x, y: x.index_put_((torch.tensor([0]),), y[:1]),
    ],
)
def test_a_write_in_place_is_refused(function):
    with pytest.raises(UnsupportedProgramError, match="in place"):
        refuse_writes_in_place(graph_of(function))


def test_functional_graphs_pass():
    refuse_writes_in_place(graph_of(lambda x, y: torch.select_scatter(x, y[0], 0, 1).sin() * torch.zeros(3)))
