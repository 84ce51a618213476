"""Torch chooses kernels by the number of samples; the model's own conditions on it are refused all the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact

D = 4


class Model(nn.Module):
    """An op whose kernel is chosen by the number of samples, and then a condition."""

    def __init__(self, op, condition=lambda _: False):
        super().__init__()
        self.op, self.condition = op, condition
        self.conv, self.l = nn.Conv2d(D, D, 1), nn.Linear(D, D)
        self.conv.requires_grad_(op is convolution)
        self.register_buffer("centers", torch.randn(3, D))

    def forward(self, x):
        h = self.op(self, self.l(x))
        return h * 2 if self.condition(x.shape[0]) else h


def convolution(m, h):
    return m.conv(h[:, :, None, None]).flatten(1)


def distances(m, h):
    return torch.cdist(h, m.centers)


def grid(m, h):
    turned = h[:, :1, None] * torch.ones(2, 3)
    return F.affine_grid(turned, [h.shape[0], 1, 2, 2], align_corners=False).flatten(1)


OPS = {"convolution": (convolution, 16), "distances": (distances, 26), "grid": (grid, 4)}
CONDITIONS = {
    "from there on": lambda limit: lambda b: b >= limit,
    "up to there": lambda limit: lambda b: b < limit,
    "from the next on": lambda limit: lambda b: b > limit,
    "one below": lambda limit: lambda b: b < limit - 1,
    "of another size": lambda limit: lambda b: 2 * b + 1 >= 2 * limit,
    "not to be seen": lambda limit: lambda b: (b >= limit) or (b < limit - 1),
}


CASES = [(op, condition, EAGER) for op in OPS for condition in CONDITIONS]
CASES += [(op, "not to be seen", CompileOptions()) for op in OPS]


@pytest.mark.parametrize(("op", "condition", "options"), CASES, ids=lambda x: getattr(x, "backend", x))
def test_the_models_own_condition_is_refused(op, condition, options):
    run, limit = OPS[op]
    for num_samples in (limit - 1, limit):
        model = Model(run, CONDITIONS[condition](limit))
        with pytest.raises(UnsoundProgramError, match="fixes the number of samples") as caught:
            dp_compile(model, "trainable", options=options)(torch.randn(num_samples, D))
        assert "self.condition" in caught.value.place.line.code or "lambda b" in caught.value.place.line.code


@pytest.mark.parametrize("op", OPS)
def test_the_kernel_is_chosen_for_each_batch(op):
    run, limit = OPS[op]
    model, module = Model(run).double(), None
    for num_samples in (limit - 1, limit, limit + 5):
        module = check_exact(
            model, torch.randn(num_samples, D, dtype=torch.float64), mode="trainable", module=module, options=EAGER
        )
