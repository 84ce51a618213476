"""Close neighbours of the programs that point at rows of the flattened batch: each of these has to be refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER
from tests.sound_programs import Run

B, T, D = 4, 5, 3


def own(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0])


def flat(m: nn.Module, x: Tensor) -> Tensor:
    return m.layer(x).flatten(0, 1)


# x [B, D] and a number i of each sample.
OF_ROWS = {
    "positions as values": lambda m, x, i: m.layer(x) * torch.zeros(len(x)).index_put((own(x),), own(x) * 1.0)[:, None],
    "positions or zero": lambda m, x, i: m.layer(x)[torch.where(x[:, 0] > 0, own(x), 0)],
    "positions moved by one": lambda m, x, i: m.layer(x)[torch.cat([own(x)[1:], own(x)[:1]])],
    "positions in reverse": lambda m, x, i: m.layer(x)[own(x).flip(0)],
    "rows of a table": lambda m, x, i: m.layer(x) + m.table[own(x) * 2 + 1],
    "a lookup of positions": lambda m, x, i: m.layer(x) + F.embedding(own(x) * 2, m.table),
    "squares of positions": lambda m, x, i: m.layer(x)[own(x) * own(x)],
    "positions times a number of the sample": lambda m, x, i: m.layer(x)[own(x) * i],
    "positions through floats": lambda m, x, i: m.layer(x)[(own(x).float() * 1.0).long()],
    "a longer count": lambda m, x, i: m.layer(x)[torch.arange(x.shape[0] + 1)[1:] - 1],
    "all positions for each": lambda m, x, i: m.layer(x)[own(x)[:, None].expand(-1, x.shape[0])].sum(1),
    "positions repeated, then cut": lambda m, x, i: m.layer(x)[own(x).repeat_interleave(2).view(2, -1)].sum(0),
    "columns at positions": lambda m, x, i: torch.zeros(len(x), 50).scatter(1, own(x)[:, None], m.layer(x)[:, :1]),
}
# x [B, T, D] and a number i of each sample.
OF_FLAT_ROWS = {
    "positions come first": lambda m, x, i: m.layer(x).transpose(0, 1).flatten(0, 1)[own(x) * T + 1],
    "another stride": lambda m, x, i: flat(m, x)[own(x) * (T - 1) + 1],
    "the number of samples as stride": lambda m, x, i: flat(m, x)[own(x) * len(x)],
    "the number of samples as offset": lambda m, x, i: flat(m, x)[own(x) * T + len(x)],
    "a sum over the samples as offset": lambda m, x, i: flat(m, x)[own(x) * T + i.sum()],
    "an offset of another sample": lambda m, x, i: flat(m, x)[own(x) * T + i.flip(0)],
    "places that may overflow": lambda m, x, i: flat(m, x)[own(x).int() * T + i.int()],
    "rows rolled": lambda m, x, i: flat(m, x).roll(1, 0).view(len(x), -1),
    "split into as many rows as there are samples": lambda m, x, i: sum(flat(m, x).split(x.shape[0])),
    "every T-th row from beyond the first": lambda m, x, i: flat(m, x)[T + 2 :: T],
    "every T-th row where positions come first": lambda m, x, i: m.layer(x).transpose(0, 1).flatten(0, 1)[::T],
    "a group of several samples": lambda m, x, i: F.conv1d(
        m.layer(x).transpose(0, 1).reshape(1, -1, D), x[:, :, :1].reshape(len(x), T, 1), groups=len(x)
    )[0],
}


@pytest.mark.parametrize("name", [*OF_ROWS, *OF_FLAT_ROWS])
def test_close_neighbours_of_sound_programs_are_refused(name):
    function = OF_ROWS.get(name) or OF_FLAT_ROWS[name]
    x = torch.randn(B, D) if name in OF_ROWS else torch.randn(B, T, D)
    model = Run(function, layer=nn.Linear(D, D), table=torch.randn(50, D))
    with pytest.raises(UnsoundProgramError):
        dp_compile(model, "full", options=EAGER)(x, torch.randint(0, T, (B,)))
