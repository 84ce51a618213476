"""The abstract values of the provenance analysis: which elements of a value depend on which sample.

It is the lattice that data-parallel sharding uses (replicate, shard, partial sum) with one shard a sample.

    Shared               depends on no sample, and not on how many there are; no axis of it runs over them
    PerSample            one axis has size outer * B * inner; index (o, b, i) along it depends on sample b alone
    SummedOverSamples    a sum over the samples of terms that each depend on one sample
    SamplePosition       b, or T * b + r, for each sample b: says where a sample stands, fit only to index with
    Refused              none of these: samples are mixed, or may be, or dpgraph knows no rule for the op

A refused value is no error by itself; it becomes one where the gradient of a trained parameter depends on it.

A value may also be scaled by the number of samples: `power` is the exponent of B that stands before it. It is -1 in
the backward of a mean over the batch, and nowhere else may it enter a gradient.

Sizes are sympy expressions, in which the batch size is the symbol B: nothing is ever guessed from equal sizes.
"""

from dataclasses import dataclass, replace
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
    "is_free",
    "meet",
    "mixes",
    "unshown",
]

ONE = sympy.Integer(1)


@dataclass(frozen=True, slots=True)
class Shared:
    """Depends on no sample: parameters, constants, random numbers of a fixed shape.

    Attributes:
        power: exponent of B before the value.
        scaled_at: the node where that power came in.
    """

    power: int = 0
    scaled_at: Node | None = None


@dataclass(frozen=True, slots=True)
class PerSample:
    """Axis `axis` has size outer * B * inner and its index (o, b, i) depends on sample b alone.

    Attributes:
        exchangeable: the rows along the axis are all equal, or drawn independently from one distribution, so that any
            other split of its size into outer * B * inner is as true, and one row alone belongs to no sample.
        power, scaled_at: as in `Shared`.
    """

    axis: int
    outer: sympy.Expr = ONE
    inner: sympy.Expr = ONE
    exchangeable: bool = False
    power: int = 0
    scaled_at: Node | None = None

    def moved_to(self, axis: int) -> "PerSample":
        """The same samples on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True, slots=True)
class SummedOverSamples:
    """A sum over the samples of terms that depend on one sample each, linear in these terms.

    Attributes:
        origin: the node that summed.
        power, scaled_at: as in `Shared`.
    """

    origin: Node
    power: int = 0
    scaled_at: Node | None = None


@dataclass(frozen=True, slots=True)
class SamplePosition:
    """Axis `axis` has size outer * B * inner, and its index (o, b, i) holds stride * b + r.

    `arange(B)` is the plain one, with stride 1 and r = 0. With a stride of T and 0 <= r < T the numbers are places in
    an axis of B * T rows, each of which is one of the sample's own.

    Attributes:
        axis, outer, inner: as in `PerSample`.
        origin: the node that counted.
        stride: a positive whole number.
        below: 0 <= r < below is known; None if nothing is known of r but that it depends on sample b alone.
    """

    axis: int
    origin: Node
    outer: sympy.Expr = ONE
    inner: sympy.Expr = ONE
    stride: sympy.Expr = ONE
    below: sympy.Expr | None = ONE

    def moved_to(self, axis: int) -> "SamplePosition":
        """The same numbers with the samples on another axis."""
        return replace(self, axis=axis)

    @property
    def layout(self) -> PerSample:
        """Which samples the numbers belong to."""
        return PerSample(self.axis, self.outer, self.inner)


@dataclass(frozen=True, slots=True)
class Refused:
    """No proof: samples are mixed at `origin`, or it cannot be shown that they are not, or its operator is unknown.

    Attributes:
        origin: the node that is at fault.
        kind: whether samples are mixed; or a sound program may do the same, and the analysis does not tell the two
            apart; or the operator has no rule.
        reason: a clause that finishes "an op …" or "the operator …".
        fix: what to write in its place, where that is known.
    """

    origin: Node
    kind: Literal["mixes", "unshown", "unknown"]
    reason: str
    fix: str = ""


Provenance = Shared | PerSample | SummedOverSamples | SamplePosition | Refused


def is_free(found: object) -> bool:
    """Whether a value depends on no sample, nor on how many there are."""
    return isinstance(found, Shared) and found.power == 0


def mixes(node: Node, reason: str, fix: str = "") -> Refused:
    """A value in which the op of `node` mixes samples."""
    return Refused(node, "mixes", reason, fix)


def unshown(node: Node, reason: str, fix: str = "") -> Refused:
    """A value of which the analysis cannot show that the op of `node` keeps samples apart."""
    return Refused(node, "unshown", reason, fix)


def meet(a: PerSample, b: PerSample) -> PerSample | None:
    """The one way in which two values that are paired element by element are per sample; None if there is none."""
    if a.axis != b.axis:
        return None
    if (a.outer, a.inner) == (b.outer, b.inner):
        return b if a.exchangeable else a
    if a.exchangeable or b.exchangeable:
        return b if a.exchangeable else a
    return None
