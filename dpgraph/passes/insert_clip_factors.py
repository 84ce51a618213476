"""Pass: turn norms into the weights of the samples."""

from collections.abc import Sequence

import sympy
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.place import find_place
from dpgraph.clipping import ClippingFunction
from dpgraph.errors import ArgumentError
from dpgraph.graphs.splice import splice
from dpgraph.provenance.rows import find_mixing
from dpgraph.torch_compat import OpOverload, computed_once, trace

__all__ = ["insert_clip_factors"]


def insert_clip_factors(
    joint: JointGraph, norms: Sequence[str], clipping: ClippingFunction, max_norm: float
) -> tuple[JointGraph, tuple[str, ...]]:
    """Add the weights [B] for each group: clip factor times loss scale, 0 where the norm is not finite.

    A group's weights wait for no other group's norms, unless the clipping function compares them. Also lets the norms
    leave the graph: they become the gradient [B, K] of the probe.

    Args:
        joint: the graph with the norms.
        norms: names of their nodes [B], one for each group.
        clipping: the clipping function.
        max_norm: R, for each group.

    Returns:
        The new graph, and the names of the nodes of the weights, one for each group.

    Raises:
        ArgumentError: the clipping function has tensor constants, draws random numbers, or does not treat every sample
            by itself.
    """
    new = joint.copy()
    nodes, probe = [new.nodes[name] for name in norms], new.nodes[joint.probe]
    scales = probe.meta["val"]
    with scales.fake_mode:
        factor = trace(lambda norms: clipping.factor(norms, max_norm), [scales.to(nodes[0].meta["val"].dtype)])
    if factor.graph.find_nodes(op="get_attr"):
        raise ArgumentError(
            f"the clipping function {type(clipping).__name__} computes with a tensor of its own",
            why="the compiled graph has the tensors of the model and of the batch, and no others",
            fix="write it with numbers, or make the tensor from the norms it is given, as norm.new_full does",
        )
    _check_rows(clipping, factor, joint.batch_symbol)
    columns = list(range(len(nodes)))
    weights: list[str] = []
    for together in [[k] for k in columns] if _is_elementwise(factor.graph) else [columns]:

        def weigh(scales: Tensor, *norms: Tensor, together: list[int] = together) -> list[Tensor]:
            table = torch.stack(norms, 1)
            found = factor(table) * scales[:, together[0] : together[-1] + 1].to(table.dtype)
            return [computed_once(w) for w in torch.where(torch.isfinite(table), found, 0).unbind(1)]

        weights += [x.name for x in splice(new.graph, weigh, [probe, *(nodes[k] for k in together)])]
    (released,) = splice(new.graph, lambda *norms: torch.stack(norms, 1).to(scales.dtype, copy=True), nodes)
    new.set_outputs({joint.probe_gradient: released})
    return new, tuple(weights)


def _check_rows(clipping: ClippingFunction, factor: GraphModule, batch: sympy.Symbol) -> None:
    """A factor may depend on the norms of its sample alone, of however many groups."""
    random = [n for n in factor.graph.nodes if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())]
    mixing = (random[0], "draws random numbers") if random else find_mixing(factor, batch)
    if mixing is not None:
        node, reason = mixing
        raise ArgumentError(
            f"the clipping function {type(clipping).__name__} does not treat every sample by itself: an op {reason}",
            place=find_place(node),
            why="what a sample contributes is bounded only if its factor depends on its own norms alone",
            fix="compute the factors of row b from row b of the norms [B, K] alone: no reduction over dimension 0, no "
            "number of samples, no random numbers",
        )


def _is_elementwise(graph: Graph) -> bool:
    """Whether every number of the result depends on one number of the input: of nothing but elementwise steps."""
    steps = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    return all(
        isinstance(node.target, OpOverload) and (torch.Tag.pointwise in node.target.tags or _is_number(node))
        for node in steps
    )


def _is_number(node: Node) -> bool:
    return not node.all_input_nodes and node.meta["val"].ndim == 0
