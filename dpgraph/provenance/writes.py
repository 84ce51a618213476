"""Refuse what a forward writes into what outlives the call, unless it is free of samples."""

from collections.abc import Iterator, Mapping

from torch.fx import Node

from dpgraph.capture.joint import Constant, Input, JointGraph, Parameter, Sample, Write
from dpgraph.capture.place import find_line, find_place
from dpgraph.errors import Place, UnsoundProgramError, UnsupportedProgramError
from dpgraph.provenance.advice import GROUP_NORM, is_batch_norm
from dpgraph.provenance.lattice import Refused, SummedOverSamples, is_free
from dpgraph.provenance.registry import Results

__all__ = ["check_writes"]

KEEP = (
    "write nothing of the samples: keep statistics of public data there, or compute what is wanted outside of "
    "training, under torch.no_grad(), and account for it as a release of its own"
)


def check_writes(joint: JointGraph, provenance: Mapping[Node, Results]) -> None:
    """Pass if the forward keeps nothing that depends on the samples, or on how many there are, and no parameter.

    Raises:
        UnsoundProgramError: it does, or it can't be told.
        UnsupportedProgramError: it writes into a parameter.
    """
    for position, name in zip(joint.mutations, joint.written, strict=True):
        node = joint.outputs[position]
        assert node is not None, "a new value was cut before the check"
        _check_in_place(joint.inputs[name], node, provenance[node])
    for write in joint.assignments:
        for value, origin in _dependent(joint, provenance, write):
            raise UnsoundProgramError(
                f"the forward assigns {value} to {write.target!r}, which outlives the call",
                place=Place(line=write.line or (find_line(origin) if origin is not None else None)),
                why="a later step, or whoever is given the model, reads there what depends on this batch's samples, "
                "without noise",
                fix="return it as an output and use it outside, or leave the assignment out in training; state that "
                "the model needs may hold what depends on parameters and constants alone",
            )


def _check_in_place(role: Input, node: Node, found: Results) -> None:
    """Pass if an input of the graph may be written with the value of a node."""
    if isinstance(role, Parameter) and is_free(found):
        raise UnsupportedProgramError(
            f"the forward writes into the parameter {role.name!r}",
            place=find_place(node, parameter=role.name),
            why="a call's gradients belong to the values with which it began, and a parameter that is changed within "
            "has no gradient that is a sum over the samples",
            fix="change parameters after the optimizer's step, under torch.no_grad(); what is never trained can be a "
            "buffer, which the forward may write",
        )
    if is_free(found):
        return
    origin = found.origin if isinstance(found, (Refused, SummedOverSamples)) else node
    if isinstance(role, Sample):
        raise UnsoundProgramError(
            f"the forward writes a value that depends on the samples into the argument {role.name!r}",
            place=find_place(origin),
            why="the caller's tensor would hold what the model made of it, and of other samples if it mixes them",
            fix="compute a new tensor (x = x * 2 in the place of x.mul_(2)), or write into x.clone()",
        )
    if isinstance(role, Parameter):
        raise UnsoundProgramError(
            f"the forward writes a value that depends on the samples into the parameter {role.name!r}",
            place=find_place(origin, parameter=role.name),
            why="a step of the optimizer is what changes parameters privately; this would change them without noise",
            fix="change parameters after the optimizer's step, under torch.no_grad(), by what depends on no sample; an "
            "embedding's max_norm shortens the rows of the batch's own ids: leave it out",
        )
    batch_norm = is_batch_norm(origin)
    value = "statistics of BatchNorm, which depend on the samples," if batch_norm else "a value that depends on samples"
    raise UnsoundProgramError(
        f"the forward writes {value} into {_name(role)}",
        place=find_place(origin),
        why="later steps read it there, so a sample would influence gradients after its own, and what is kept would be "
        "released without noise",
        fix=GROUP_NORM if batch_norm else KEEP,
    )


def _name(role: Input) -> str:
    return repr(role.name) if isinstance(role, Constant) and role.name else "what all samples share"


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
