"""Programs with rows that are equal for all samples, or drawn for each from one distribution."""

import torch

from tests.provenance.analysed import B, samples, shared
from tests.provenance.program import program

T, D = 4, 5
X = samples(B, T, D)

ROWS = [
    program("one of equal rows", 0, lambda x, w: x * w.expand(x.shape[0], -1, -1)[:1], X, shared(1, T, 1)),
    program("the first of equal rows", 0, lambda x, w: x * w.expand(x.shape[0], -1, -1)[0], X, shared(1, T, 1)),
    program("one of random rows", "shared", lambda x: torch.rand_like(x)[0], X),
    program(
        "equal rows as positions and samples",
        0,
        lambda x: x.transpose(0, 1).reshape(-1, D) * x.new_ones(x.shape[0] * T, 1).view(T, -1, 1).reshape(-1, 1),
        X,
    ),
    program(
        "equal rows read in another order",
        "refused",
        lambda x, w: x.permute(2, 0, 1).reshape(-1) * w.expand(x.shape[0] * T, D).reshape(-1),
        X,
        shared(1, D),
    ),
]
