"""What a private training loop needs around `dp_compile`: sampling, noise, accounting.

    sampler = PoissonSampler(num_records, sampling_probability, steps)
    sigma = calibrate_noise_multiplier(target_epsilon=8, sampling_probability=q, steps=steps, delta=1e-5)
    noise = add_noise_on_step(optimizer, noise_multiplier=sigma, sensitivity=model.sensitivity,
                              expected_batch_size=sampler.expected_batch_size)
    for batch in sampler:
        for part in split_batch(batch, max_size):
            ...backward...                         # p.grad is the sum of clipped per-sample gradients
        optimizer.step()                           # noise is added here
        optimizer.zero_grad()
    epsilon(sampling_probability=q, noise_multiplier=sigma, steps=noise.num_steps, delta=1e-5)

A `DataLoader(records, batch_sampler=sampler)` needs `collate_fn=collate_any_size(records[0])`: batches may be empty.

The three agree on one mechanism: each step draws every record independently with probability q, adds up gradients of
norm at most `sensitivity`, adds Gaussian noise of standard deviation `noise_multiplier * sensitivity`, and divides by
a constant. Neighbouring data sets differ by adding or removing one record.
"""

from dpgraph.privacy.accounting import calibrate_noise_multiplier, epsilon
from dpgraph.privacy.collating import collate_any_size
from dpgraph.privacy.noise import GaussianNoise, add_noise_on_step
from dpgraph.privacy.sampling import PoissonSampler, split_batch

__all__ = [
    "GaussianNoise",
    "PoissonSampler",
    "add_noise_on_step",
    "calibrate_noise_multiplier",
    "collate_any_size",
    "epsilon",
    "split_batch",
]
