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
    joint: JointGraph,
    norms: Sequence[str],
    shares: Sequence[str],
    clipping: ClippingFunction,
    *,
    unit: float,
    weighed: torch.dtype,
) -> tuple[JointGraph, tuple[str, ...]]:
    """Add the weights [B] for each group: clip factor times loss scale, 0 where it or the norm is not finite.

    R of each group is what the probe carries, beside the loss scales. A group's weights wait for no other group's
    norms, unless the clipping function compares them. Also lets the norms
    leave the graph, with the shares of error in their squares: they become the gradient [B, 2, K] of the probe. What
    has no factor has an infinite norm there.

    Args:
        joint: the graph with the norms.
        norms: names of their nodes [B], one for each group.
        shares: names of the nodes of the errors of their squares.
        clipping: the clipping function.
        unit: what the weights are divided by, so that they are ordinary numbers whatever R is.
        weighed: the least exact dtype in which something is multiplied by a weight.

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
        like = scales[:, 0].to(nodes[0].meta["val"].dtype)
        factor = trace(lambda norm, max_norm: clipping.factor(norm, max_norm), [like, like.clone()])
    if factor.graph.find_nodes(op="get_attr"):
        raise ArgumentError(
            f"the clipping function {type(clipping).__name__} computes with a tensor of its own",
            why="the compiled graph has the tensors of the model and of the batch, and no others",
            fix="write it with numbers, or make the tensor from the norms it is given, as norm.new_full does",
        )
    _check_rows(clipping, factor, joint.batch_symbol)
    columns = list(range(len(nodes)))
    weights: list[str] = []
    released: list[Node] = []
    for together in [[k] for k in columns] if _is_elementwise(factor.graph) else [columns]:

        def weigh(scales: Tensor, *norms: Tensor, together: list[int] = together) -> list[Tensor]:
            table = torch.stack(norms, 1)
            scale, max_norm = scales[:, :, together[0] : together[-1] + 1].to(table.dtype).unbind(1)
            factors = factor(table, max_norm)
            found = factors * scale
            found = found if unit == 1 else found / unit
            finite = torch.isfinite(table)
            usable = finite & _is_usable(factors, table.dtype) & _is_usable(found, weighed)
            weights = [computed_once(w) for w in torch.where(usable, found, 0).unbind(1)]
            return [*weights, *torch.where(usable | ~finite, table, torch.inf).unbind(1)]

        made = splice(new.graph, weigh, [probe, *(nodes[k] for k in together)])
        weights += [x.name for x in made[: len(together)]]
        released += made[len(together) :]

    def release(*columns: Tensor) -> Tensor:
        norms, shares = columns[: len(nodes)], columns[len(nodes) :]
        return torch.stack([torch.stack(norms, 1), torch.stack(shares, 1)], 1).to(scales.dtype)

    (gradient,) = splice(new.graph, release, [*released, *(new.nodes[name] for name in shares)])
    new.set_outputs({joint.probe_gradient: gradient})
    return new, tuple(weights)


def _is_usable(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether a weight is 0 or an ordinary number of a dtype: subnormal ones are too coarse to bound anything."""
    info = torch.finfo(dtype)
    return (weight == 0) | ((weight >= info.tiny) & (weight <= info.max))


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
