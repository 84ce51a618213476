"""The error for a graph that is compiled wrongly, with the operator at which it goes wrong."""

from collections.abc import Sequence

from torch import Tensor
from torch.fx import Node

from dpgraph.capture.place import find_place
from dpgraph.errors import MiscompiledError, Place
from dpgraph.options import CompileOptions
from dpgraph.torch_compat import compile_part
from dpgraph.validate.compare import compare
from dpgraph.validate.comparison import Outcome, Reference, same_random_numbers
from dpgraph.validate.first_wrong import Part, find_first_wrong

__all__ = ["blame", "blame_a_write"]

WHY = (
    "what a sample contributes is bounded in the graph that was analysed, and what ran is not that graph: its "
    "gradients may be wrong, and unclipped; none was handed out"
)
RUN_OP_BY_OP = (
    'pass options=CompileOptions(backend="eager"), which runs the same graph op by op; and report the program, since '
    "the compiler behind torch.compile, or what dpgraph has it compile, has a defect"
)
SPLIT_OTHERWISE = (
    "leave CompileOptions.memory_budget at 1, with which nothing random is computed twice; and report the program, "
    "since how the graph was split into forward and backward is a defect"
)
AS_A_WHOLE = (
    "no part of the graph is off when it is compiled alone: it arises in the graph as a whole, from how it is split "
    "into forward and backward, or from memory that is used again too early"
)
SHOWN = 3


def blame(outcome: Outcome, options: CompileOptions) -> MiscompiledError:
    """The error for values that differ; looks for the operator by compiling parts, which takes a while."""
    names = sorted(outcome.wrong, key=lambda name: -outcome.differences[name].relative)
    what = f"the compiled graph computes something else than its operators one by one; off: {_how_far(outcome, names)}"
    nodes = [node for name in names if (node := outcome.values[name].node) is not None]
    first = None
    if options.backend == "inductor" and nodes:
        first = find_first_wrong(outcome.reference.joint, nodes, _Alone(outcome.reference).wrong)
    parameter = next((p for name in names if (p := outcome.values[name].parameter) is not None), None)
    if first is not None:
        what += f"; the first node that is compiled wrongly is {first.name}"
        place = find_place(first, parameter=parameter)
    else:
        what += f"; {AS_A_WHOLE}"
        place = find_place(nodes[0], parameter=parameter) if nodes else Place(parameter=parameter)
    return MiscompiledError(what, place=place, why=WHY, fix=_fix(options))


def blame_a_write(names: Sequence[str], options: CompileOptions) -> MiscompiledError:
    """The error for a graph that writes into parameters."""
    return MiscompiledError(
        f"the compiled graph wrote into the parameters {', '.join(names)}, and no operator of it does",
        place=Place(parameter=names[0]),
        why="the parameters are not any more what they were: load the model again",
        fix=_fix(options),
    )


def _fix(options: CompileOptions) -> str:
    return RUN_OP_BY_OP if options.backend == "inductor" else SPLIT_OTHERWISE


def _how_far(outcome: Outcome, names: Sequence[str]) -> str:
    told = [f"{name} (by {outcome.differences[name].relative:.1e} of its norm)" for name in names[:SHOWN]]
    rest = len(names) - SHOWN
    return ", ".join(told) + (f" and {rest} more" if rest > 0 else "")


class _Alone:
    """Compiles a part alone, and compares it with its operators run one by one."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def wrong(self, part: Part) -> list[Node]:
        """The nodes that the part, compiled alone, computes wrongly; none where it does not compile alone."""
        if not part.returns:
            return []
        keep = {node.name: node for node in (*part.reads, *part.returns)}
        values = self.reference.run(keep)
        try:
            compiled = compile_part(part.module)
            with same_random_numbers(self.reference.inputs):
                returned = compiled([_copy(values[node.name]) for node in part.reads])
        except Exception:  # noqa: BLE001  a part need not compile where the whole does
            return []
        found = {node.name: x for node, x in zip(part.returns, returned, strict=True)}
        expected = {name: values[name] for name in found}
        differences = compare(found, expected, self.reference.precision)
        suspects = {name: keep[name] for name, d in differences.items() if d.exceeds}
        return [keep[name] for name in self.reference.settle(suspects, differences, found, expected)]


def _copy(x: object) -> object:
    return x.clone() if isinstance(x, Tensor) else x
