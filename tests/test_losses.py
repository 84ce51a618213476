"""The losses are those of torch, sample by sample, and sound inside the graph."""

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpgraph import ArgumentError, CompileOptions, dp_compile, losses

EAGER = CompileOptions(backend="eager")


def alone(loss, outputs, targets):
    """The loss of each sample as a batch of one."""
    return torch.stack([loss(outputs[b : b + 1], targets[b : b + 1])[0] for b in range(len(outputs))])


CASES = {
    "cross_entropy": (losses.cross_entropy, (5, 3), torch.tensor([0, 2, 1, 1, 0])),
    "probabilities": (losses.cross_entropy, (5, 3), torch.rand(5, 3).softmax(1)),
    "smoothed": (functools.partial(losses.cross_entropy, label_smoothing=0.1), (5, 3), torch.tensor([0, 2, 1, 1, 0])),
    "binary": (losses.binary_cross_entropy, (5,), torch.tensor([0, 1, 1, 0, 1])),
    "several binary": (losses.binary_cross_entropy, (5, 3), torch.randint(2, (5, 3))),
    "tokens": (losses.token_cross_entropy, (5, 4, 3), torch.randint(3, (5, 4))),
    "shifted": (functools.partial(losses.token_cross_entropy, shift=True), (5, 4, 3), torch.randint(3, (5, 4))),
    "summed": (functools.partial(losses.token_cross_entropy, reduction="sum"), (5, 4, 3), torch.randint(3, (5, 4))),
    "squares": (losses.mean_squared_error, (5, 2, 3), torch.randn(5, 2, 3)),
    "column": (losses.mean_squared_error, (5, 1), torch.randn(5)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("num_samples", [0, 1, 5])
def test_one_number_for_each_sample_that_no_other_one_touches(case, num_samples):
    loss, shape, targets = case
    torch.manual_seed(0)
    outputs, targets = torch.randn(shape)[:num_samples], targets[:num_samples]
    found = loss(outputs, targets)
    assert found.shape == (num_samples,)
    if num_samples:
        torch.testing.assert_close(found, alone(loss, outputs, targets))
        torch.testing.assert_close(loss(SimpleNamespace(logits=outputs), targets), found)


def test_tokens_without_a_label_count_for_nothing():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    labels[0, 2:], labels[1] = -100, -100
    found = losses.token_cross_entropy(logits, labels)
    torch.testing.assert_close(found[0], F.cross_entropy(logits[0, :2], labels[0, :2]))
    assert found[1] == 0
    torch.testing.assert_close(found[2], F.cross_entropy(logits[2], labels[2]))
    other = losses.token_cross_entropy(logits, labels.where(labels != -100, 7), ignore_index=7)
    torch.testing.assert_close(other, found)


def test_a_shifted_loss_predicts_the_next_token():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5), torch.randint(5, (2, 4))
    found = losses.token_cross_entropy(logits, labels, shift=True, reduction="sum")
    torch.testing.assert_close(found[1], F.cross_entropy(logits[1, :-1], labels[1, 1:], reduction="sum"))


@pytest.mark.parametrize("name", ["tokens", "shifted", "cross_entropy", "several binary", "squares"])
def test_they_are_sound_inside_the_graph(name):
    loss, shape, targets = CASES[name]
    model = nn.Linear(4, shape[-1])
    module = dp_compile(model, "full", clipping="auto-v", loss_fn=loss, options=EAGER)
    torch.manual_seed(0)
    x = torch.randn(*shape[:-1], 4)
    module(x, targets=(targets,)).sum().backward()
    inside = model.weight.grad.clone()
    model.zero_grad()
    outside = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    loss(outside(x), targets).sum().backward()
    torch.testing.assert_close(model.weight.grad, inside)


def test_what_is_no_loss_is_an_error_of_ours():
    with pytest.raises(ArgumentError, match="reduction"):
        losses.token_cross_entropy(torch.randn(2, 3, 4), torch.zeros(2, 3).long(), reduction="none")
    with pytest.raises(ArgumentError, match="logits of shape"):
        losses.token_cross_entropy(torch.randn(2, 4), torch.zeros(2).long())
    with pytest.raises(ArgumentError, match="logits of shape"):
        losses.cross_entropy(torch.randn(2, 3, 4), torch.zeros(2, 3).long())
    with pytest.raises(ArgumentError, match="without logits"):
        losses.cross_entropy({"scores": torch.randn(2, 4)}, torch.zeros(2).long())
