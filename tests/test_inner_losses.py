"""A loss that the model computes itself: refused with the loss to use instead, or accepted for a constant divisor."""

import functools
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile, losses
from tests.zoo.entries import BOTH, CLASSES, TEXT, entry, ids
from tests.zoo.senses import PATCHES
from tests.zoo.text import CAUSAL, GPT, T5

EAGER = CompileOptions(backend="eager")
LOGGER = logging.getLogger("tests")
TOKENS = "loss_fn=dpgraph.losses.token_cross_entropy"
B = 4
SPEECH = {k: v for k, v in BOTH.items() if k != "max_position_embeddings"}
SPEECH |= {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 10}


def classes(*shape: int) -> Tensor:
    return torch.randint(CLASSES, shape)


# title -> (class of transformers, settings, arguments, what the error has to name)
WITH_LABELS = {
    "classes": (
        "BertForSequenceClassification",
        TEXT,
        lambda: {"input_ids": ids(B), "labels": classes(B)},
        "loss_fn=dpgraph.losses.cross_entropy",
    ),
    "several labels": (
        "BertForSequenceClassification",
        {**TEXT, "problem_type": "multi_label_classification"},
        lambda: {"input_ids": ids(B), "labels": classes(B, CLASSES).clamp_max(1).float()},
        "loss_fn=dpgraph.losses.binary_cross_entropy",
    ),
    "a number": (
        "BertForSequenceClassification",
        {**TEXT, "num_labels": 1},
        lambda: {"input_ids": ids(B), "labels": torch.randn(B)},
        "loss_fn=dpgraph.losses.mean_squared_error",
    ),
    "tokens": (
        "BertForTokenClassification",
        TEXT,
        lambda: {"input_ids": ids(B), "labels": classes(B, 6)},
        TOKENS,
    ),
    "the next token": (
        "GPT2LMHeadModel",
        {**CAUSAL, **GPT},
        lambda: {"input_ids": ids(B), "labels": ids(B)},
        "loss_fn=functools.partial(dpgraph.losses.token_cross_entropy, shift=True)",
    ),
    "a translation": ("T5ForConditionalGeneration", T5, lambda: {"input_ids": ids(B), "labels": ids(B, 4)}, TOKENS),
    "images": (
        "ViTForImageClassification",
        PATCHES,
        lambda: {"pixel_values": torch.randn(B, 3, 16, 16), "labels": classes(B)},
        "loss_fn=dpgraph.losses.cross_entropy",
    ),
    "a transcript": (
        "WhisperForConditionalGeneration",
        SPEECH,
        lambda: {"input_features": torch.randn(B, 8, 20), "labels": ids(B, 4)},
        TOKENS,
    ),
}


@pytest.mark.parametrize(("name", "settings", "arguments", "named"), WITH_LABELS.values(), ids=WITH_LABELS)
def test_the_error_names_the_loss_to_use(name, settings, arguments, named):
    model = entry(name, settings, lambda n: n).build(torch.float32)
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "full", options=EAGER)(**arguments())
    assert named in caught.value.fix
    assert "without `labels`" in caught.value.fix


def test_a_mean_over_the_batch_is_accepted_as_such():
    name, settings, arguments, _ = WITH_LABELS["a number"]
    inputs = arguments()

    def gradients(loss_fn, **options):
        model = entry(name, settings, lambda n: n).build()
        module = dp_compile(model, "bitfit", clipping="auto-v", options=EAGER, loss_fn=loss_fn, **options)
        if loss_fn is None:
            module(**inputs).loss.backward()
        else:
            module(input_ids=inputs["input_ids"], targets=(inputs["labels"],)).sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    inside, given = gradients(None, loss_reduction="mean"), gradients(losses.mean_squared_error)
    assert inside.keys() == given.keys()
    for parameter, gradient in given.items():
        torch.testing.assert_close(inside[parameter], gradient)


def test_a_constant_number_of_items_is_accepted():
    x = ids(B)
    labels = x.clone()
    labels[0, 3:] = -100
    summed = functools.partial(losses.token_cross_entropy, shift=True, reduction="sum")

    def build():
        return entry("GPT2LMHeadModel", {**CAUSAL, **GPT}, lambda n: n).build()

    given, model = build(), build()
    outside = dp_compile(given, "bitfit", options=EAGER, loss_fn=lambda outputs, y: summed(outputs, y) / 20)
    outside(input_ids=x, targets=(labels,)).sum().backward()
    inside = dp_compile(model, "bitfit", options=EAGER)
    inside(input_ids=x, labels=labels, num_items_in_batch=20).loss.backward()
    # Models of transformers compute this loss in float32, whatever their parameters are.
    torch.testing.assert_close(inside.grad_norms, outside.grad_norms, rtol=1e-5, atol=1e-7)
    for p, q in zip(model.parameters(), given.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)


class Scores(nn.Module):
    """A head, and a loss of its own."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.layer, self.loss = nn.Linear(4, CLASSES), loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.layer(x), y)


def masked_mean(scores: Tensor, y: Tensor) -> Tensor:
    kept = (y > 0).to(scores.dtype)
    return (scores.square() * kept[:, None]).sum() / kept.sum().clamp(min=1.0)


class Tagger(nn.Module):
    """The mean loss of the first words of each sample, with some of the targets."""

    def __init__(self, cut: slice) -> None:
        super().__init__()
        self.layer, self.cut = nn.Linear(4, CLASSES), cut

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.layer(x)[:, :3].flatten(0, 1), y[:, self.cut].flatten())


@pytest.mark.parametrize(("cut", "named"), [(slice(1, 4), "shift=True"), (slice(0, 3), TOKENS)])
def test_targets_that_begin_later_are_those_of_a_decoder(cut, named):
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(Tagger(cut), "full", options=EAGER)(torch.randn(B, 6, 4), classes(B, 6))
    assert named in caught.value.fix


def own_divisor(scores: Tensor, y: Tensor) -> Tensor:
    kept = y[:, None] > torch.arange(CLASSES)
    return ((scores.square() * kept).sum(1) / kept.sum(1).clamp_min(1)).sum()


def test_a_divisor_that_the_data_select_is_recognised_in_a_loss_of_ones_own():
    with pytest.raises(UnsoundProgramError, match="divided by a sum over all samples") as caught:
        dp_compile(Scores(masked_mean), "full", options=EAGER)(torch.randn(B, 4), classes(B))
    assert "loss_fn=dpgraph.losses.mean_squared_error" in caught.value.fix


@pytest.mark.parametrize(
    ("loss", "reduction"),
    [
        (own_divisor, "sum"),
        (lambda scores, y: F.cross_entropy(scores, y, reduction="sum") / 16, "sum"),
        (lambda scores, y: F.cross_entropy(scores, y, reduction="none").mean(), "mean"),
        (lambda scores, y: F.cross_entropy(scores, y, reduction="sum") / len(y), "mean"),
    ],
    ids=["its own", "a constant", "a mean", "the number of samples"],
)
def test_other_divisors_are_accepted(loss, reduction):
    module = dp_compile(Scores(loss), "full", loss_reduction=reduction, options=EAGER)
    module(torch.randn(B, 4), classes(B)).backward()
    assert module.grad_norms.shape == (B,)


def test_a_mean_beside_a_sum_is_refused_for_what_it_is():
    def both(scores: Tensor, y: Tensor) -> Tensor:
        return scores.square().mean() + F.cross_entropy(scores, y, reduction="sum")

    for reduction, said in (("sum", 'pass loss_reduction="mean"'), ("mean", "every loss has to be a mean")):
        with pytest.raises(UnsoundProgramError) as caught:
            dp_compile(Scores(both), "full", loss_reduction=reduction, options=EAGER)(torch.randn(B, 4), classes(B))
        assert said in caught.value.fix


@pytest.mark.parametrize("num_samples", [1, 5])
def test_a_head_of_one_number_works_for_batches_of_every_size(num_samples):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    module = dp_compile(model, "full", options=EAGER)
    module(torch.randn(num_samples, 4)).squeeze().sum().backward()
    assert module.grad_norms.shape == (num_samples,)


def test_what_a_model_logs_breaks_no_graph():
    class Talkative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            LOGGER.warning("so many features: %d", x.shape[1])
            return self.layer(x)

    module = dp_compile(Talkative(), "full", options=EAGER)
    module(torch.randn(3, 4)).sum().backward()
    assert module.grad_norms.shape == (3,)
