"""Refuse a graph in which a sample could influence another sample's gradient."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.place import find_place
from dpgraph.errors import DPGraphError, UnsoundProgramError, UnsupportedProgramError
from dpgraph.provenance.advice import advise, is_batch_norm
from dpgraph.provenance.inner_loss import find_mean_loss, find_normalised_loss, replace_loss
from dpgraph.provenance.lattice import PerSample, Refused, SamplePosition, Shared, SummedOverSamples, mixes
from dpgraph.provenance.registry import Results
from dpgraph.provenance.rules.pointwise import is_zero
from dpgraph.provenance.writes import check_writes

__all__ = ["check_soundness"]

WHY = (
    "clipping bounds what a sample adds to the gradient only if it influences no other sample's gradient; "
    "here it does, and noise scaled to the clipping bound would not hide it"
)

SUM = 'sum over the samples instead; for one mean over the batch pass loss_reduction="mean"'
ALL_MEANS = (
    'with loss_reduction="mean" every loss has to be a mean over the batch, those too that the model computes; for a '
    'loss that is divided by a constant leave it "sum"'
)
UNSEEN = (
    "what dpgraph cannot show it refuses: if samples do meet there, clipping would not bound what one of them adds to "
    "the gradient"
)
# These only put values into other places: whether samples meet is up to what reads them.
REARRANGES = {torch.ops.aten.view.default}


def check_soundness(
    joint: JointGraph, provenance: Mapping[Node, Results], trained: Iterable[str], *, expected_power: int
) -> None:
    """Pass if every trained gradient is a sum over the samples, and nothing that outlives the call depends on them.

    Args:
        joint: the graph.
        provenance: what `infer_provenance` found in it.
        trained: names of the trained parameters.
        expected_power: of B before every gradient: -1 if a mean is undone (`loss_reduction="mean"`), else 0.

    Raises:
        UnsoundProgramError: samples are mixed on the way to a trained gradient, or kept by the forward.
        UnsupportedProgramError: an op without a transfer rule stands on that way, or a parameter is written.
    """
    check_writes(joint, provenance)
    for name in trained:
        gradient = joint.gradient_of(name) if name in joint.gradients else None
        if gradient is not None:
            _check_gradient(joint, provenance, name, gradient, expected_power)


def _check_gradient(
    joint: JointGraph, provenance: Mapping[Node, Results], name: str, gradient: Node, expected_power: int
) -> None:
    found = provenance[gradient]
    assert not isinstance(found, tuple)
    if isinstance(found, Shared) and not is_zero(gradient):
        found = mixes(gradient, "gives a gradient that no sample owns")
    if isinstance(found, (PerSample, SamplePosition)):
        found = mixes(gradient, "gives a gradient that was not summed over the samples")
    if isinstance(found, Refused):
        raise _refusal(found, name, joint, provenance, expected_power)
    if isinstance(found, SummedOverSamples) and found.power != expected_power:
        raise UnsoundProgramError(
            f"a gradient is scaled by the number of samples in the batch (to the power of {found.power}, not of "
            f"{expected_power})",
            place=find_place(found.scaled_at or gradient, parameter=name),
            why="one sample more or less changes what all the others contribute",
            fix=_fix_of_power(joint, provenance, expected_power),
        )


def _refusal(
    found: Refused, parameter: str, joint: JointGraph, provenance: Mapping[Node, Results], expected_power: int
) -> DPGraphError:
    place = find_place(found.origin, parameter=parameter)
    if found.kind == "unknown":
        return UnsupportedProgramError(
            f"the operator `{found.origin.target}` {found.reason}",
            place=place,
            why="without one nothing is known of which sample influences which",
            fix="write the step with other operators, leave the parameters behind it untrained, or tell how the "
            "operator treats samples with dpgraph.register_transfer",
        )
    if found.kind == "unshown":
        return UnsupportedProgramError(
            f"dpgraph cannot see that samples stay apart in an op that {found.reason}",
            place=place,
            why=UNSEEN,
            fix=advise(found),
        )
    what, fix = f"an op {found.reason}", advise(found)
    if is_batch_norm(found.origin):
        what = f"BatchNorm takes its statistics over the samples: {what}"
    normalised = find_normalised_loss(found.origin, provenance)
    if normalised is not None:
        what = "a loss inside the model is divided by a sum over all samples, such as their number of tokens or labels"
        fix = replace_loss(normalised, provenance)
    elif _is_scaled(found.origin, provenance):
        fix = _fix_of_power(joint, provenance, expected_power)
    why = UNSEEN if found.origin.target in REARRANGES else WHY
    return UnsoundProgramError(what, place=place, why=why, fix=fix)


def _fix_of_power(joint: JointGraph, provenance: Mapping[Node, Results], expected_power: int) -> str:
    inside = find_mean_loss(joint, provenance)
    if expected_power == 0 and inside is not None:
        return f"{SUM}; or {replace_loss(inside, provenance)}"
    return SUM if expected_power == 0 else ALL_MEANS


def _is_scaled(node: Node, provenance: Mapping[Node, Results]) -> bool:
    """Whether a power of B stands before an operand."""
    tensors = [x for x in node.all_input_nodes if isinstance(x.meta.get("val"), Tensor)]
    return any(getattr(provenance[x], "power", 0) for x in tensors)
