"""Pass: read every size from one place, so that what is computed twice is spelled the same way both times.

Each pass reads sizes from the tensors at hand, and compilers merge nodes of the same operands. With B read from the
gradient of the queries here and of the keys there, the Gram matrices of their common input would be two.
"""

import sympy
from torch import SymInt
from torch.fx import Node

from dpgraph.capture.joint import JointGraph, Tangent

__all__ = ["share_sizes"]


def share_sizes(joint: JointGraph) -> JointGraph:
    """Replace sizes by the first node that is equal to them for all values of the symbols.

    A size that is read off a gradient does not stand for one of the forward's, which runs before there are gradients.
    """
    new = joint.copy()
    of_forward: dict[sympy.Expr, Node] = {}
    of_backward: dict[sympy.Expr, Node] = {}
    backward = {new.nodes[name] for name, role in new.inputs.items() if isinstance(role, Tangent)}
    for node in new.graph.nodes:
        if not backward.isdisjoint(node.all_input_nodes):
            backward.add(node)
        value = node.meta.get("val")
        if isinstance(value, SymInt):
            size = value.node.expr
            of_half = of_backward if node in backward else of_forward
            kept = of_forward.get(size) or of_half.setdefault(size, node)
            if kept is not node:
                node.replace_all_uses_with(kept)
    return new
