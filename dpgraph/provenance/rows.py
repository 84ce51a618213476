"""Whether a function of a table with one row a sample treats every row by itself."""

from types import MappingProxyType

import sympy
from torch.fx import GraphModule, Node

from dpgraph.capture.joint import JointGraph, Sample
from dpgraph.provenance.infer import infer_provenance
from dpgraph.provenance.lattice import Refused, Shared, SummedOverSamples
from dpgraph.provenance.registry import Results

__all__ = ["find_mixing"]


def find_mixing(function: GraphModule, batch: sympy.Symbol) -> tuple[Node, str] | None:
    """The op at which rows of the operands meet on the way to a result, with a clause that finishes "an op …".

    Args:
        function: a traced function; axis 0 of its operands and of its results runs over the samples.
        batch: the symbol of their number.

    Returns:
        None if row b of the results depends on row b of the operands alone, and not on how many rows there are.
    """
    graph = function.graph
    (results,) = graph.output_node().args
    returned = [x for x in (results if isinstance(results, (tuple, list)) else (results,)) if isinstance(x, Node)]
    inputs = {node.name: Sample(0) for node in graph.find_nodes(op="placeholder")}
    joint = JointGraph(
        graph=graph,
        batch_symbol=batch,
        inputs=MappingProxyType(inputs),
        probe="",
        gradients=MappingProxyType({}),
        probe_gradient=-1,
        mutations=(),
        num_forward_outputs=len(returned),
        returned=(),
        module=function,
    )
    known = infer_provenance(joint)
    return next((found for node in returned if (found := _mixing(node, known[node])) is not None), None)


def _mixing(node: Node, found: Results) -> tuple[Node, str] | None:
    assert not isinstance(found, tuple), f"{node} has several results"
    if isinstance(found, Refused):
        return found.origin, found.reason
    if isinstance(found, SummedOverSamples):
        return found.origin, "sums over the samples"
    if isinstance(found, Shared):
        return node, "gives a result of another shape than one row for each sample"
    if getattr(found, "power", 0):
        return node, "uses the number of samples in the batch as a value"
    axis, outer, inner = (getattr(found, name, None) for name in ("axis", "outer", "inner"))
    return None if (axis, outer, inner) == (0, 1, 1) else (node, "gives samples other places than those of their rows")
