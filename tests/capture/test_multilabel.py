"""Margins between the labels of a sample and all other classes, of which torch computes others when it is compiled."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpgraph import dp_compile
from dpgraph.capture.spell_out import multilabel_margin_loss
from tests.oracle import group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER, INDUCTOR

# none, some, all classes; the same one twice; labels behind the end
TARGETS = torch.tensor([[-1, 2, 1, 0], [0, 2, -1, 1], [3, -1, 0, 0], [2, 1, 0, 3], [1, 1, -1, -1]])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_loss_is_that_of_torch(reduction):
    scores = torch.randn(5, 4, dtype=torch.float64)
    for x, target in ((scores, TARGETS), (scores[1], TARGETS[1])):
        expected = F.multilabel_margin_loss(x, target, reduction=reduction)
        torch.testing.assert_close(multilabel_margin_loss(x, target, reduction=reduction), expected)


def test_the_old_arguments_mean_the_same():
    scores, old = torch.randn(5, 4, dtype=torch.float64), {"size_average": False, "reduce": True}
    found = multilabel_margin_loss(scores, TARGETS, **old)
    with pytest.warns(UserWarning, match="reduction='sum'"):
        torch.testing.assert_close(found, F.multilabel_margin_loss(scores, TARGETS, **old))


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_gradients_are_exact(options):
    model = nn.Linear(3, 4).double()
    loss = nn.MultiLabelMarginLoss(reduction="none")
    module = dp_compile(model, "full", loss_fn=loss, clipping="auto-v", options=options)
    x = torch.randn(5, 3, dtype=torch.float64)
    losses = module(x, targets=(TARGETS,))
    torch.testing.assert_close(losses, loss(model(x), TARGETS))
    losses.sum().backward()
    samples = per_sample_gradients(model, lambda m, b: loss(m(x[b : b + 1]), TARGETS[b : b + 1]).sum(), 5)
    expected = samples.clipped_sum(group_names(["weight", "bias"], "flat"), "auto-v", 1.0)
    found = {name: p.grad for name, p in model.named_parameters()}
    assert max(relative_errors(found, expected).values()) < 1e-10
