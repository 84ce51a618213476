"""Refuse what a forward assigns to objects that outlive the call, unless it is free of samples."""

from collections.abc import Iterator, Mapping

from torch.fx import Node

from dpgraph.capture.joint import JointGraph, Write
from dpgraph.capture.place import find_line
from dpgraph.errors import Place, UnsoundProgramError
from dpgraph.provenance.lattice import Refused, is_free
from dpgraph.provenance.registry import Results

__all__ = ["check_writes"]


def check_writes(joint: JointGraph, provenance: Mapping[Node, Results]) -> None:
    """Pass if no assignment of the forward keeps anything that depends on the samples, or on how many there are.

    Raises:
        UnsoundProgramError: one does, or it can't be told.
    """
    for write in joint.assignments:
        for value, node in _dependent(joint, provenance, write):
            raise UnsoundProgramError(
                f"the forward assigns {value} to {write.target!r}, which outlives the call",
                place=Place(line=write.line or (find_line(node) if node is not None else None)),
                why="a later step, or whoever is given the model, reads there what depends on this batch's samples, "
                "without noise",
                fix="return it as an output and use it outside, or leave the assignment out in training; state that "
                "the model needs may hold what depends on parameters and constants alone",
            )


def _dependent(
    joint: JointGraph, provenance: Mapping[Node, Results], write: Write
) -> Iterator[tuple[str, Node | None]]:
    """What is not provably free of samples among the values of an assignment, with its node if there is one."""
    yield from ((value, None) for value in write.unproved)
    for position in write.returned:
        name = joint.returned[position]
        if name is None:
            yield "a value that is not in the graph", None
            continue
        node = joint.nodes[name]
        found = provenance[node]
        if not is_free(found):
            origin = found.origin if isinstance(found, Refused) else node
            yield "a value that depends on samples", origin
