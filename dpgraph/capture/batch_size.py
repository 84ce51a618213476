"""Hold that a captured program is one for batches of every size, and else find the line that is not.

A program that works for one size alone, or that branches on the size, lets one sample decide what happens to the
others. The tracer notes both: it makes the symbol B a number, or it adds a guard that mentions B.
"""

import linecache
import operator
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from dpgraph.capture.joint import Input, Sample
from dpgraph.capture.place import find_line, find_place, parse_line
from dpgraph.capture.sizes import depends_on_batch
from dpgraph.errors import DPGraphError, Place, SourceLine, UnsoundProgramError, UnsupportedProgramError
from dpgraph.torch_compat import FakeTensorMode, ShapeEnv, chooses_kernel, symbolic_fake, unset_fake_temporarily

__all__ = ["batch_size_fixed", "refuse_guards", "refuse_specialisation"]

WHY = (
    "an op that works for one batch size alone, or differently for another, pairs samples with one another or with "
    "places in the batch, and Poisson sampling draws batches of every size"
)
FIX = (
    "write the size of the batch as x.shape[0], never as a number; do not branch on it, nor move samples to other "
    "axes; a single record is a batch of one, x[None]"
)
LOCATION = re.compile(r"# (?P<file>\S+):(?P<line>\d+) in (?P<function>\S+)")


def batch_size_fixed(place: Place) -> UnsoundProgramError:
    """The program makes sense for some batch sizes alone."""
    return UnsoundProgramError("the program fixes the number of samples in the batch", place=place, why=WHY, fix=FIX)


def refuse_specialisation(
    env: ShapeEnv, gm: GraphModule, inputs: Sequence[Any], roles: Sequence[Input]
) -> DPGraphError:
    """The error for a program that made B a number, with the op or the line of Python that did.

    Args:
        env: what the tracer noted of sizes.
        gm: the graph that was captured.
        inputs: its inputs, real tensors.
        roles: what they are.
    """
    node = _find_fixing_node(gm, inputs, roles)
    if node is not None:
        return _unrolled(gm, node) or batch_size_fixed(find_place(node))
    stack = next(iter(env.specialization_stacks.values()), None)
    return batch_size_fixed(Place(line=parse_line("".join(stack.format())) if stack is not None else None))


def _unrolled(gm: GraphModule, node: Node) -> UnsupportedProgramError | None:
    """The error for what keeps samples apart, and which the tracer can write down for one batch size alone."""
    if node.target in (operator.getitem, operator.setitem) and any(map(_is_counted, _leaves(node.args[1]))):
        what = "the batch is indexed with a Python range or list, of which the tracer makes numbers for one batch size"
        fix = "count with torch.arange(x.shape[0], device=x.device), which is exact"
    elif node.target in CONVOLUTIONS and _in_vmap(gm, node):
        what = "torch's rule for a convolution with a kernel for each sample under vmap is for one batch size alone"
        fix = "write it with groups, which is exact: conv2d(x.view(1, B * c, H, W), w.view(B * o, c, k, k), groups=B)"
    elif (name := getattr(node.target, "__name__", str(node.target))) in FIX_SIZES:
        what = f"torch's own code of `{name}` is traced for one batch size alone"
        fix = f"write {FIX_SIZES[name]}, which is exact"
    else:
        return None
    return UnsupportedProgramError(what, place=find_place(node), why=UNROLLED, fix=fix)


UNROLLED = (
    "Poisson sampling draws batches of every size, and samples may be kept apart here, but dpgraph cannot see that of "
    "numbers that hold for one size"
)
# Functions and methods that make numbers of the sizes they are given, and what to write in their place.
FIX_SIZES = {
    "take_along_dim": "x.gather(dim, index)",
    "gradient": "differences of slices, such as (x[:, 2:] - x[:, :-2]) / 2",
    "kron": "products of axes that are put side by side, and flatten() them",
    "linalg_multi_dot": "a @ b @ c",
    "chain_matmul": "a @ b @ c",
}
CONVOLUTIONS = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
}


def _leaves(key: Any) -> Sequence[Any]:
    return key if isinstance(key, tuple) else (key,)


def _is_counted(index: Any) -> bool:
    return isinstance(index, range) or (isinstance(index, list) and all(type(i) is int for i in index))


def _in_vmap(gm: GraphModule, node: Node) -> bool:
    names = [getattr(n.target, "__name__", "") for n in gm.graph.nodes if n < node]
    return names.count("_vmap_increment_nesting") > names.count("_vmap_decrement_nesting")


def refuse_guards(env: ShapeEnv, batch: sympy.Symbol, gm: GraphModule) -> None:
    """Pass if the captured graph holds for every B >= 2 if it holds for one, the choice of kernels aside.

    Raises:
        UnsoundProgramError: some guard may not.
    """
    for guard in env.guards:
        if chooses_kernel(guard):
            continue
        condition = env.replace(guard.expr)
        if depends_on_batch(condition, batch, env):
            described = str(condition).replace(str(batch), "B")
            raise batch_size_fixed(Place(op=f"a condition on the batch size B: {described}", line=_line_of(guard, gm)))


def _line_of(guard: Any, gm: GraphModule) -> SourceLine | None:
    """The user's line of a guard, which says the file by the end of its path alone."""
    found = LOCATION.search(str(guard.sloc.maybe_user_loc or ""))
    if found is None:
        return None
    for filename in _known_files(gm):
        if filename.endswith(found["file"]):
            number = int(found["line"])
            return SourceLine(filename, number, found["function"], linecache.getline(filename, number).strip())
    return None


def _known_files(gm: GraphModule) -> Iterable[str]:
    yield from (line.filename for node in gm.graph.nodes if (line := find_line(node)) is not None)
    yield from (str(path) for m in list(sys.modules.values()) if (path := getattr(m, "__file__", None)) is not None)


class _FixedError(Exception):
    """B became a number."""


def _find_fixing_node(gm: GraphModule, inputs: Sequence[Any], roles: Sequence[Input]) -> Node | None:
    """The first node that needs B to be a number, found by running the graph on sizes that are symbols again."""
    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    fakes = [_fake(mode, x, role) for x, role in zip(inputs, roles, strict=True)]
    batches = [x.shape[r.axis] for x, r in zip(fakes, roles, strict=True) if isinstance(r, Sample)]
    culprit: list[Node] = []

    class Watching(Interpreter):
        def run_node(self, n: Node) -> Any:
            culprit[:] = [n]
            result = super().run_node(n)
            if any(size.node.expr.is_number for size in batches):
                raise _FixedError
            return result

    try:
        with mode, torch.no_grad():
            Watching(gm).run(*fakes)
    except Exception:  # noqa: BLE001  whatever a symbolic size makes the op raise, the op is what was looked for
        return culprit[0]
    return None


def _fake(mode: FakeTensorMode, x: Any, role: Input) -> Any:
    if not isinstance(x, Tensor):
        return x
    # under the mode of the capture, which takes no real tensors
    with unset_fake_temporarily():
        return symbolic_fake(mode, x.detach(), role.axis if isinstance(role, Sample) else None)
