"""What the check takes for granted of one graph, and what one sample can stop for all: for the certificate to say.

Sizes of inputs other than the number of samples are public by assumption. Where a batch is padded to its longest sample
they are not: that sample decides the length, and a mean over it then depends on others. A mask, or one length for all
batches, takes that away.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import Constant, JointGraph, Sample
from dpgraph.capture.place import find_place
from dpgraph.errors import Place
from dpgraph.provenance.lattice import PerSample, Shared
from dpgraph.provenance.registry import Results
from dpgraph.torch_compat import find_operators, tree_leaves

__all__ = ["Assumptions", "PublicSize", "find_assumptions"]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class PublicSize:
    """A size of an input that differs from call to call of one graph, and is taken to be public.

    Attributes:
        argument: the argument that the input came from.
        axis: of the input.
    """

    argument: str
    axis: int

    def __str__(self) -> str:
        return f"size of axis {self.axis} of {self.argument}"


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is taken for granted of one graph.

    Attributes:
        public_sizes: sizes of inputs that vary, the number of samples aside.
        means: where values of trained gradients are divided by such sizes.
        stops: ops that end in an error for some values of one sample, so that it decides whether the step happens.
    """

    public_sizes: tuple[PublicSize, ...]
    means: tuple[Place, ...]
    stops: tuple[Place, ...]


def find_assumptions(joint: JointGraph, provenance: Mapping[Node, Results], trained: Iterable[str]) -> Assumptions:
    """Read them off a graph that was found sound.

    Args:
        joint: the graph.
        provenance: what `infer_provenance` found in it.
        trained: names of the trained parameters.
    """
    on_the_way = _behind([g for name in trained if name in joint.gradients and (g := joint.gradient_of(name))])
    means = [node for node in joint.graph.nodes if node in on_the_way and _divides_by_varying(node, joint.batch_symbol)]
    stops = [node for node in joint.graph.nodes if _stops(node, provenance)]
    return Assumptions(tuple(_public_sizes(joint)), _places(means), _places(stops))


def _public_sizes(joint: JointGraph) -> Iterator[PublicSize]:
    for node in joint.graph.find_nodes(op="placeholder"):
        role, value = joint.inputs[node.name], node.meta.get("val")
        if node.name == joint.probe or not isinstance(role, (Sample, Constant)) or not isinstance(value, Tensor):
            continue
        samples = role.axis if isinstance(role, Sample) else None
        varying = [axis for axis, size in enumerate(value.shape) if isinstance(size, torch.SymInt) and axis != samples]
        yield from (PublicSize(role.name, axis) for axis in varying)


def _behind(nodes: Iterable[Node]) -> set[Node]:
    """The nodes, and all that they are computed from."""
    seen: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return seen


MEANS = {aten.mean.default, aten.mean.dim, *find_operators("aten.var.correction", "aten.var_mean.correction")}
DIVIDES = {aten.div.Tensor, aten.div.Scalar, aten.mul.Tensor}


def _divides_by_varying(node: Node, batch: sympy.Symbol) -> bool:
    """Whether a tensor is divided by a size that varies, or a mean is taken over one; B has a check of its own."""
    if node.target in MEANS:
        operand = node.args[0]
        assert isinstance(operand, Node)
        before, after = operand.meta["val"], next(iter(tree_leaves(node.meta["val"])))
        return bool(_symbols(before.shape) - _symbols(after.shape) - {batch})
    if node.target not in DIVIDES or not isinstance(node.args[1], Node):
        return False
    whole_number = isinstance(node.args[1].meta.get("val"), torch.SymInt)
    if node.target is aten.mul.Tensor and whole_number:  # and not times 1 / T
        return False
    return bool(_sizes_in(node.args[1]) - {batch})


def _sizes_in(node: Node) -> set[sympy.Symbol]:
    """Symbols of the sizes that a number was computed of; the tracer computes some as tensors without axes."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return set().union(*map(_sizes_in, node.all_input_nodes)) if value.ndim == 0 else set()
    return _symbols([value])


def _symbols(sizes: Iterable[object]) -> set[sympy.Symbol]:
    return {s for x in sizes if isinstance(x, (torch.SymInt, torch.SymFloat)) for s in x.node.expr.free_symbols}


# The operands that may be such that the op fails, by position.
FAILS: dict[object, tuple[int, ...]] = {
    operator: positions
    for positions, names in {
        (0,): "aten._linalg_eigh.default aten._linalg_svd.default aten.linalg_eig.default aten.multinomial.default "
        "aten.bernoulli.default aten.binomial.default aten.poisson.default aten._assert_async.default "
        "aten._assert_async.msg aten._assert_scalar.default aten._linalg_check_errors.default",
        (1,): "aten.embedding.default aten.index.Tensor aten._unsafe_index.Tensor aten.index_put.default "
        "aten.index_select.default",
        (2,): "aten.gather.default aten.scatter.src aten.scatter.value aten.scatter_add.default "
        "aten.scatter_reduce.two aten.index_add.default",
    }.items()
    for operator in find_operators(*names.split())
}


def _stops(node: Node, provenance: Mapping[Node, Results]) -> bool:
    """Whether an op of the forward fails for some values of an operand that depends on samples."""
    if node.meta.get("fwd_stack_trace"):  # a backward reads at places that the forward has read
        return False
    deciding = [x for i in FAILS.get(node.target, ()) for x in tree_leaves(node.args[i]) if isinstance(x, Node)]
    return any(_depends(provenance[x]) for x in deciding)


def _depends(found: Results) -> bool:
    several = found if isinstance(found, tuple) else (found,)
    return any(not isinstance(p, Shared) and not (isinstance(p, PerSample) and p.exchangeable) for p in several)


def _places(nodes: Iterable[Node]) -> tuple[Place, ...]:
    """One for each line and operator."""
    found: dict[object, Place] = {}
    for node in nodes:
        place = find_place(node)
        found.setdefault((place.line, place.line is None and place.op), place)
    return tuple(found.values())
