"""Give back the outputs that a batch would have had without its rows of padding.

The tracer cannot keep a batch of 0 or 1 symbolic, and physical batches may be fixed, so `capture.batch` pads: with
copies of the first sample, an empty batch with zeros, which nobody computes with (`lower.empty`). The rows of padding
get weight 0 in every gradient; here they leave the outputs. A sum over the rows cannot lose them, unless all are copies
of one sample; where batches are fixed such outputs are refused at once, and not when the first smaller batch comes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpgraph.capture.batch import BatchedCall
from dpgraph.capture.containers import find_leaves, map_leaves
from dpgraph.errors import UnsupportedProgramError
from dpgraph.provenance.lattice import PerSample, Provenance, SamplePosition, Shared, SummedOverSamples

__all__ = ["refuse_sums", "without_padding"]


def without_padding(outputs: Any, known: Mapping[int, Provenance], call: BatchedCall) -> Any:
    """Outputs of a padded call as they are for the samples that the user gave.

    Args:
        outputs: what the module returned, tensors in any nesting.
        known: provenance of tensors among them, by id.
        call: the padded call.
    """

    def undo(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) in call.dims:
            return x.narrow(call.dims[id(x)], 0, call.num_samples)
        match known.get(id(x)):
            case PerSample(power=power) as found:
                cut, share = _cut(x, found, call), call.num_samples / call.num_rows
                return cut * share**power if power and share else cut
            case SamplePosition() as found:
                return _cut(x, found.layout, call)
            case SummedOverSamples(power=power):
                return _sum_without_copies(x, call, power).to(x.dtype)
            case Shared(power=power) if power:
                share = call.num_samples / call.num_rows
                return x * (share**power if share or power > 0 else torch.inf)
            case _:
                return x

    return map_leaves(undo, outputs)


def refuse_sums(outputs: Any, known: Mapping[int, Provenance]) -> None:
    """Pass if no output is a sum over the samples.

    Raises:
        UnsupportedProgramError: one is.
    """
    for x in find_leaves(outputs):
        if isinstance(known.get(id(x)), SummedOverSamples):
            raise UnsupportedProgramError(
                "the model returns a sum over the samples, and physical batches are fixed",
                why="rows that only fill up a smaller batch would count in the sum",
                fix='return one value a sample and sum outside, or leave CompileOptions(batch="any")',
            )


def _cut(x: Tensor, found: PerSample, call: BatchedCall) -> Tensor:
    """The first `num_samples` of the rows, in each of the outer blocks."""
    outer, inner = (int(f) if f.is_Integer else -1 for f in (found.outer, found.inner))
    split = x.unflatten(found.axis, (outer, call.num_rows, inner))
    kept: Tensor = split.narrow(found.axis + 1, 0, call.num_samples)
    return kept.flatten(found.axis, found.axis + 2)


def _sum_without_copies(x: Tensor, call: BatchedCall, power: int) -> Tensor:
    """B^power times a sum over the samples, whose rows are copies of one sample: as it would be for that one.

    Its gradient comes from that one row alone, so its weight is B^power without the copies.
    """
    if call.num_samples == 0:
        return x * 0 if power == 0 else x * torch.nan
    share = call.num_samples / call.num_rows
    weight = share**power
    return x * weight - x.detach() * weight * (1 - share)
