"""Pass: read every size from one place, so that what is computed twice is spelled the same way both times.

Each pass reads sizes from the tensors at hand, and compilers merge nodes of the same operands. With B read from the
gradient of the queries here and of the keys there, the Gram matrices of their common input would be two.
"""

import sympy
from torch import SymInt
from torch.fx import Node

from dpgraph.capture.joint import JointGraph

__all__ = ["share_sizes"]


def share_sizes(joint: JointGraph) -> JointGraph:
    """Replace sizes by the first node that is equal to them for all values of the symbols."""
    new = joint.copy()
    first: dict[sympy.Expr, Node] = {}
    for node in new.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, SymInt):
            kept = first.setdefault(value.node.expr, node)
            if kept is not node:
                node.replace_all_uses_with(kept)
    return new
