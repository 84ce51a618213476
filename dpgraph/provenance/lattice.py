"""The abstract values of the provenance analysis: which elements of a value depend on which sample.

It is the lattice that data-parallel sharding uses (replicate, shard, partial sum) with one shard a sample.

    Shared               depends on no sample
    PerSample            one axis has size outer * B * inner; index (o, b, i) along it depends on sample b alone
    SummedOverSamples    a sum over the samples of terms that each depend on one sample
    SamplePosition       `arange(B)` along an axis: says where a sample stands in the batch, fit only to index with
    Refused              none of these: the samples are mixed, or dpgraph knows no rule for the op

A refused value is no error by itself; it becomes one where the gradient of a trained parameter depends on it.

Sizes are sympy expressions, in which the batch size is the symbol B: nothing is ever guessed from equal sizes.
"""

from dataclasses import dataclass
from typing import Literal

import sympy
from torch.fx import Node

__all__ = [
    "PerSample",
    "Provenance",
    "Refused",
    "SamplePosition",
    "Shared",
    "SummedOverSamples",
    "mixes",
]

ONE = sympy.Integer(1)


@dataclass(frozen=True, slots=True)
class Shared:
    """Depends on no sample: parameters, constants, random numbers.

    Attributes:
        scaled_by_batch_size: the node where the number of samples entered the value, if it did.
    """

    scaled_by_batch_size: Node | None = None


@dataclass(frozen=True, slots=True)
class PerSample:
    """Axis `axis` has size outer * B * inner and its index (o, b, i) depends on sample b alone."""

    axis: int
    outer: sympy.Expr = ONE
    inner: sympy.Expr = ONE
    scaled_by_batch_size: Node | None = None

    def moved_to(self, axis: int) -> "PerSample":
        """The same samples on another axis."""
        return PerSample(axis, self.outer, self.inner, self.scaled_by_batch_size)


@dataclass(frozen=True, slots=True)
class SummedOverSamples:
    """A sum over the samples of terms that depend on one sample each, linear in these terms.

    Attributes:
        origin: the node that summed.
    """

    origin: Node
    scaled_by_batch_size: Node | None = None


@dataclass(frozen=True, slots=True)
class SamplePosition:
    """`arange(B)` along `axis`: index b holds b, and nothing else of the sample."""

    axis: int
    origin: Node
    scaled_by_batch_size: Node | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """No proof: either samples are mixed at `origin`, or its operator is unknown.

    Attributes:
        origin: the node that is at fault.
        kind: whether samples are mixed, or the operator has no rule.
        reason: a clause that finishes "refused because it …".
    """

    origin: Node
    kind: Literal["mixes", "unknown"]
    reason: str
    scaled_by_batch_size: Node | None = None


Provenance = Shared | PerSample | SummedOverSamples | SamplePosition | Refused


def mixes(node: Node, reason: str) -> Refused:
    """A value in which the op of `node` mixes samples."""
    return Refused(node, "mixes", reason)
