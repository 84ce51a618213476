"""Pass: what per-sample gradients are made of is computed once, for the norms and for the weighted sums.

Inductor computes a pointwise value anew in each kernel that reads it. The two may differ in their last digits, by a
vector's exponential beside a scalar's or by a product that is added without being rounded; and where the value is what
is left of a cancellation, by as much as it is. Then a norm would say nothing of what is summed.
"""

from collections.abc import Mapping

import torch
from torch.fx import Node

from dpgraph.capture.joint import JointGraph, Tangent
from dpgraph.graphs.splice import splice
from dpgraph.sites.gradient import PerSampleGradient
from dpgraph.torch_compat import OpOverload, held_in_backward

__all__ = ["hold_operands"]


def hold_operands(
    joint: JointGraph, gradients: Mapping[str, PerSampleGradient]
) -> tuple[JointGraph, Mapping[str, PerSampleGradient]]:
    """Keep the operands of gradients that would be fused into whatever reads them.

    Returns:
        The new graph, or `joint` itself if there is none, and the gradients in it.
    """
    names = dict.fromkeys(name for gradient in gradients.values() for name in gradient.operands)
    new, held = joint.copy(), {}
    fused = [name for name in names if _is_fused(new.nodes[name])]
    tangent = next((name for name, role in joint.inputs.items() if isinstance(role, Tangent)), None)
    if not fused or tangent is None:
        return joint, gradients
    for name in fused:
        (node,) = splice(new.graph, held_in_backward, [new.nodes[name], new.nodes[tangent]])
        held[name] = node.name
    return new, {
        parameter: PerSampleGradient(gradient.forms, tuple(held.get(name, name) for name in gradient.operands))
        for parameter, gradient in gradients.items()
    }


def _is_fused(node: Node) -> bool:
    """Whether a node is a pointwise value, or a view of one, in floating point."""
    if not node.meta["val"].is_floating_point():
        return False
    while isinstance(node.target, OpOverload) and node.target.is_view:
        node = node.all_input_nodes[0]
    return isinstance(node.target, OpOverload) and torch.Tag.pointwise in node.target.tags
