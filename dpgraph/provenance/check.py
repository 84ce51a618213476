"""Refuse a graph in which a sample could influence another sample's gradient."""

from collections.abc import Iterable, Mapping

from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.place import find_place
from dpgraph.errors import DPGraphError, UnsoundProgramError, UnsupportedProgramError
from dpgraph.provenance.lattice import PerSample, Provenance, Refused, SamplePosition, Shared, SummedOverSamples, mixes
from dpgraph.provenance.registry import Results
from dpgraph.provenance.rules.pointwise import is_zero

__all__ = ["check_soundness"]

WHY = (
    "clipping bounds what a sample adds to the gradient only if it influences no other sample's gradient; "
    "here it does, and noise scaled to the clipping bound would not hide it"
)


def check_soundness(
    joint: JointGraph, provenance: Mapping[Node, Results], trained: Iterable[str], *, expected_power: int
) -> None:
    """Pass if every trained gradient is a sum over the samples and no buffer depends on them.

    Args:
        joint: the graph.
        provenance: what `infer_provenance` found in it.
        trained: names of the trained parameters.
        expected_power: of B before every gradient: -1 if a mean is undone (`loss_reduction="mean"`), else 0.

    Raises:
        UnsoundProgramError: samples are mixed on the way to a trained gradient, or into a buffer.
        UnsupportedProgramError: an op without a transfer rule stands on that way.
    """
    for position in joint.mutations:
        node = joint.outputs[position]
        assert node is not None, "a buffer's new value was cut before the check"
        _check_buffer(node, provenance)
    for name in trained:
        gradient = joint.gradient_of(name) if name in joint.gradients else None
        if gradient is not None:
            _check_gradient(name, gradient, provenance[gradient], expected_power)


def _check_buffer(node: Node, provenance: Mapping[Node, Results]) -> None:
    found = provenance[node]
    if isinstance(found, Shared) and found.power == 0:
        return
    origin = found.origin if isinstance(found, (Refused, SummedOverSamples)) else node
    raise UnsoundProgramError(
        "the forward writes a value that depends on the samples into a buffer",
        place=find_place(origin),
        why="later steps read the buffer, so a sample would influence gradients after its own, and the buffer itself "
        "would be released without noise",
        fix="freeze the statistics (module.eval() for BatchNorm), or use a layer without them (GroupNorm, LayerNorm)",
    )


def _check_gradient(name: str, gradient: Node, found: Results, expected_power: int) -> None:
    assert not isinstance(found, tuple)
    if isinstance(found, Shared) and not is_zero(gradient):
        found = mixes(gradient, "gives a gradient that no sample owns")
    if isinstance(found, (PerSample, SamplePosition)):
        found = mixes(gradient, "gives a gradient that was not summed over the samples")
    if isinstance(found, Refused):
        raise _refusal(found, name)
    if isinstance(found, SummedOverSamples) and found.power != expected_power:
        raise UnsoundProgramError(
            f"a gradient is scaled by the number of samples in the batch (to the power of {found.power}, not of "
            f"{expected_power})",
            place=find_place(found.scaled_at or gradient, parameter=name),
            why="one sample more or less changes what all the others contribute",
            fix='sum over the samples instead; for one mean over the batch pass loss_reduction="mean"',
        )


def _refusal(found: Provenance, parameter: str) -> DPGraphError:
    assert isinstance(found, Refused)
    place = find_place(found.origin, parameter=parameter)
    if found.kind == "unknown":
        return UnsupportedProgramError(
            f"the operator `{found.origin.target}` {found.reason}",
            place=place,
            why="without one nothing is known of which sample influences which",
            fix="write the step with other operators, leave the parameters behind it untrained, or tell how the "
            "operator treats samples with dpgraph.register_transfer",
        )
    return UnsoundProgramError(
        f"an op {found.reason}",
        place=place,
        why=WHY,
        fix="compute per sample: reduce over features or positions, never over the batch; use GroupNorm or LayerNorm "
        "for BatchNorm; give batch_dims if dimension 0 of an input is not the batch",
    )
