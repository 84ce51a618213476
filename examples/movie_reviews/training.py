"""The training loop, private and not."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

import dpgraph
from dpgraph.privacy import PoissonSampler, add_noise_on_step, calibrate_noise_multiplier, epsilon, split_batch
from examples.movie_reviews.encoder import Encoded, SentenceClassifier

__all__ = ["OnProgress", "Outcome", "Settings", "measure_accuracy", "train_plainly", "train_privately"]

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters; the defaults were chosen by `tune.py` on the validation split.

    Attributes:
        head_rate: learning rate of the head (Adam, falling to 0 linearly).
        bias_rate: that of the encoder's biases.
        batch_size: expected number of sentences in a Poisson batch.
        epochs: expected number of times that a sentence is drawn.
        num_tokens: T, at which sentences are cut.
        physical_size: the most sentences in one forward and backward; changes memory and speed alone.
        target_epsilon, delta: the privacy budget.
        backend: "inductor" or "eager".
    """

    head_rate: float = 0.03
    bias_rate: float = 1e-2
    batch_size: int = 256
    epochs: float = 2.0
    num_tokens: int = 40
    physical_size: int = 128
    target_epsilon: float = 8.0
    delta: float = 1e-5
    backend: Literal["inductor", "eager"] = "inductor"

    def num_steps(self, num_records: int) -> int:
        """How many steps draw each record `epochs` times in expectation."""
        return max(1, round(self.epochs * num_records / self.batch_size))


@dataclass(slots=True)
class Outcome:
    """A run: the model, and what was measured at which step."""

    model: nn.Module
    noise_multiplier: float = 0.0
    steps: list[int] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epsilons: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train_privately(
    train: Encoded, test: Encoded, settings: Settings, *, seed: int, num_checks: int, on_progress: OnProgress
) -> Outcome:
    """DP-BiTFiT: all biases and the head, AUTO-S clipping, Poisson batches, Gaussian noise.

    The seed makes a run of the example repeatable; leave out both generators where privacy counts.

    Args:
        train: sentences to learn from.
        test: sentences to measure the accuracy on.
        settings: hyperparameters and budget.
        seed: of the batches and the noise.
        num_checks: how many times the accuracy is measured, at least 1; the last time is at the end.
        on_progress: called now and then with the steps done, all steps, and a line of news.
    """
    started = time.monotonic()
    steps = settings.num_steps(len(train))
    generator = torch.Generator().manual_seed(seed)
    sampler = PoissonSampler(len(train), settings.batch_size / len(train), steps, generator=generator)
    budget = {"sampling_probability": sampler.sampling_probability, "delta": settings.delta}
    on_progress(0, steps, "calibrating the noise")
    sigma = calibrate_noise_multiplier(target_epsilon=settings.target_epsilon, steps=steps, **budget)

    model = dpgraph.dp_compile(
        SentenceClassifier(),
        mode="bitfit",
        also_train="head.*",
        clipping="auto-s",
        options=dpgraph.CompileOptions(backend=settings.backend),
    )
    optimizer, schedule = _make_optimizer(model, settings, steps)
    noise = add_noise_on_step(
        optimizer,
        noise_multiplier=sigma,
        sensitivity=model.sensitivity,
        expected_batch_size=sampler.expected_batch_size,
        generator=generator,
    )
    outcome = Outcome(model, sigma)
    on_progress(0, steps, "compiling")
    for step, batch in enumerate(sampler, start=1):
        for part in split_batch(batch, settings.physical_size):
            sentences = train.take(part)
            logits = model(sentences.ids, sentences.mask)
            F.cross_entropy(logits, sentences.labels, reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if _is_check(step, steps, num_checks):
            outcome.steps.append(step)
            outcome.accuracies.append(measure_accuracy(model, test))
            outcome.epsilons.append(epsilon(noise_multiplier=sigma, steps=noise.num_steps, **budget))
        on_progress(step, steps, _news(outcome))
    outcome.seconds = time.monotonic() - started
    return outcome


def train_plainly(train: Encoded, settings: Settings, *, seed: int, on_progress: OnProgress) -> nn.Module:
    """The same biases and head without privacy: shuffled batches of means, no clipping, no noise."""
    model = SentenceClassifier()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias") or name.startswith("head."))
    steps = settings.num_steps(len(train))
    optimizer, schedule = _make_optimizer(model, settings, steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(train), generator=generator) for _ in range(1 + int(settings.epochs))])
    for step in range(steps):
        sentences = train.take(order[step * settings.batch_size : (step + 1) * settings.batch_size])
        logits = model(sentences.ids, sentences.mask)
        F.cross_entropy(logits, sentences.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        on_progress(step + 1, steps, "")
    return model


@torch.no_grad()
def measure_accuracy(model: nn.Module, test: Encoded, num_at_once: int = 256) -> float:
    """Share of the sentences whose label the model gives."""
    correct = 0
    for indices in torch.arange(len(test)).split(num_at_once):
        sentences = test.take(indices)
        logits = model(sentences.ids, sentences.mask)
        correct += int((logits.argmax(1) == sentences.labels).sum())
    return correct / len(test)


def _make_optimizer(
    model: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    head = {name: p for name, p in model.named_parameters() if name.startswith("head.")}
    biases = [p for name, p in model.named_parameters() if p.requires_grad and name not in head]
    optimizer = torch.optim.Adam(
        [
            {"params": list(head.values()), "lr": settings.head_rate},
            {"params": biases, "lr": settings.bias_rate},
        ]
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)


def _is_check(step: int, steps: int, num_checks: int) -> bool:
    """Whether this step is one of `num_checks` evenly spaced ones, of which the last is the last."""
    return step * num_checks // steps > (step - 1) * num_checks // steps


def _news(outcome: Outcome) -> str:
    if not outcome.steps:
        return ""
    return f"accuracy {outcome.accuracies[-1]:.1%}, epsilon {outcome.epsilons[-1]:.2f}"
