"""Poisson sampling of batches, and their division into parts that fit into memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dpgraph.checks import require_count, require_probability
from dpgraph.privacy.entropy import entropy_generator

__all__ = ["PoissonSampler", "split_batch"]


class PoissonSampler:
    """Batches that hold each record independently with one probability: the sampling that the accountant assumes.

    Batch sizes vary (binomially) and may be 0; an empty batch is yielded like any other, for the step must take place
    and add its noise. A `DataLoader` that has this for its `batch_sampler` needs
    `collate_fn=collate_any_size(records[0])`: torch's own collating ends in an IndexError at an empty batch.

    Shuffling and cutting into equal batches is a different mechanism with a weaker guarantee (Chua et al. 2024,
    arXiv:2403.17673).

    Args:
        num_records: N, how many records there are, at least 1.
        sampling_probability: q in (0, 1], the probability of a record to be in a batch.
        steps: how many batches an iteration yields, at least 0.
        generator: source of randomness on the CPU, for reproducible runs; the operating system's entropy by default.
            Iterating twice goes on with the same generator: the batches are new ones.

    Raises:
        ArgumentError: an argument is outside its range.

    Source: Abadi et al. 2016 (arXiv:1607.00133), section 3.1.

    >>> sampler = PoissonSampler(10, 0.5, steps=3, generator=torch.Generator().manual_seed(0))
    >>> len(sampler), sampler.expected_batch_size
    (3, 5.0)
    >>> [batch.numel() for batch in sampler]
    [4, 7, 4]
    """

    def __init__(
        self, num_records: int, sampling_probability: float, steps: int, *, generator: torch.Generator | None = None
    ) -> None:
        require_count("num_records", num_records, minimum=1, why="there is nothing to draw from")
        require_count("steps", steps, why="it is the number of batches, which the accountant counts")
        require_probability(
            "sampling_probability",
            sampling_probability,
            may_be_one=True,
            why="amplification by sampling is computed from this probability",
        )
        self.num_records = num_records
        self.sampling_probability = sampling_probability
        self.steps = steps
        self._generator = generator or entropy_generator()

    @property
    def expected_batch_size(self) -> float:
        """N * q: a constant, so that dividing by it tells nothing about the batch."""
        return self.num_records * self.sampling_probability

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        """Yield `steps` tensors of ascending record numbers, int64 [b]."""
        for _ in range(self.steps):
            # float64: 24 random bits of float32 would round a small q
            draws = torch.rand(self.num_records, dtype=torch.float64, generator=self._generator)
            yield (draws < self.sampling_probability).nonzero().squeeze(1)


def split_batch(batch: Tensor, max_size: int) -> list[Tensor]:
    """Cut a logical batch into the fewest physical batches of at most `max_size`, sizes as equal as can be.

    `p.grad` adds up over physical batches, so the split changes memory alone.

    Args:
        batch: record numbers [b].
        max_size: the most records in one forward and backward, at least 1.

    Returns:
        Physical batches in order. An empty batch gives one empty part, so that its backward leaves gradients of zero.

    Raises:
        ArgumentError: `max_size` is not a whole number of at least 1.

    >>> [part.tolist() for part in split_batch(torch.arange(5), max_size=2)]
    [[0, 1], [2, 3], [4]]
    """
    require_count("max_size", max_size, minimum=1, why="each physical batch must hold at least one record")
    num_parts = max(1, -(-batch.shape[0] // max_size))
    return list(torch.tensor_split(batch, num_parts))
