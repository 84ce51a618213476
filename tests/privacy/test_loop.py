"""The parts together with a compiled model: batches of every size, physical batches, one noisy step each."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dpgraph
from dpgraph.privacy import PoissonSampler, add_noise_on_step, split_batch

NUM_RECORDS = 12


@pytest.fixture(scope="module")
def trained():
    """Weights after 30 steps without noise, by physical batch size; batches hold 0 to 5 of 12 records."""
    return {size: train(size) for size in (2, NUM_RECORDS)}


def train(physical_size, sigma=0.0):
    torch.manual_seed(0)
    records, labels = torch.randn(NUM_RECORDS, 3, dtype=torch.float64), torch.arange(NUM_RECORDS) % 2
    model = nn.Linear(3, 2).double()
    private = dpgraph.dp_compile(model, "full", options=dpgraph.CompileOptions(backend="eager"))
    sampler = PoissonSampler(NUM_RECORDS, 0.1, steps=30, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(private.parameters(), lr=0.5)
    noise = add_noise_on_step(
        optimizer,
        noise_multiplier=sigma,
        sensitivity=private.sensitivity,
        expected_batch_size=sampler.expected_batch_size,
    )
    sizes = []
    for batch in sampler:
        sizes.append(len(batch))
        for part in split_batch(batch, physical_size):
            F.cross_entropy(private(records[part]), labels[part], reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()
    assert 0 in sizes
    assert max(sizes) > 2
    assert noise.num_steps == len(sizes)
    return model.weight.detach()


def test_physical_batches_change_nothing(trained):
    torch.testing.assert_close(trained[2], trained[NUM_RECORDS])


def test_steps_are_means_of_clipped_gradients(trained):
    torch.manual_seed(0)
    records, labels = torch.randn(NUM_RECORDS, 3, dtype=torch.float64), torch.arange(NUM_RECORDS) % 2
    model = nn.Linear(3, 2).double()
    for batch in PoissonSampler(NUM_RECORDS, 0.1, steps=30, generator=torch.Generator().manual_seed(0)):
        sums = [torch.zeros_like(p) for p in model.parameters()]
        for i in batch.tolist():
            gradients = torch.autograd.grad(F.cross_entropy(model(records[i]), labels[i]), list(model.parameters()))
            norm = sum(g.square().sum() for g in gradients).sqrt()
            sums = [total + g / (norm + 0.01) for total, g in zip(sums, gradients, strict=True)]
        with torch.no_grad():
            for p, total in zip(model.parameters(), sums, strict=True):
                p -= 0.5 * total / (0.1 * NUM_RECORDS)
    torch.testing.assert_close(trained[NUM_RECORDS], model.weight.detach())


def test_noise_reaches_the_weights(trained):
    assert (train(NUM_RECORDS, sigma=1.0) - trained[NUM_RECORDS]).abs().min() > 0
