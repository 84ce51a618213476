"""Operators of torch whose own code makes numbers of sizes are refused by name, and not as if the program did."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import UnsupportedProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact


class Program(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


OPERATORS = {
    "take_along_dim": (
        lambda h: torch.take_along_dim(h, h.argsort(1), 1),
        lambda h: h.gather(1, h.argsort(1)),
    ),
    "Tensor.take_along_dim": (
        lambda h: h.take_along_dim(h.argsort(1), 1),
        lambda h: h.gather(1, h.argsort(1)),
    ),
    "gradient": (
        lambda h: torch.gradient(h, dim=1)[0][:, 1:-1],
        lambda h: (h[:, 2:] - h[:, :-2]) / 2,
    ),
    "kron": (
        lambda h: torch.kron(h, torch.ones(1, 2, dtype=h.dtype)),
        lambda h: (h[:, :, None] * torch.ones(2, dtype=h.dtype)).flatten(1),
    ),
    "linalg.multi_dot": (
        lambda h: torch.linalg.multi_dot([h, torch.ones(4, 3, dtype=h.dtype), torch.ones(3, 2, dtype=h.dtype)]),
        lambda h: h @ torch.ones(4, 3, dtype=h.dtype) @ torch.ones(3, 2, dtype=h.dtype),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_written_in_the_place_of_an_operator_of_one_size(name):
    refused, written = OPERATORS[name]
    h = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(refused(h), written(h))
    with pytest.raises(UnsupportedProgramError, match="traced for one batch size alone") as caught:
        dp_compile(Program(refused).double(), "full", options=EAGER)(h)
    assert name.split(".")[-1] in caught.value.what
    assert caught.value.place.line is not None
    check_exact(Program(written).double(), h)
