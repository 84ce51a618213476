"""Pass: a convolution whose number of groups is a size runs as it is; Inductor would make that size a number.

It would be compiled anew for each size of the batch, if at all: the number of samples has to stay a symbol.
"""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.graphs.splice import splice
from dpgraph.kernels.grouped_convolution import convolve_groups, convolve_groups_backward
from dpgraph.torch_compat import tree_map

__all__ = ["keep_groups_whole"]

aten = torch.ops.aten
GROUPS = {aten.convolution.default: 8, aten.convolution_backward.default: 9}
WHOLE = {aten.convolution.default: convolve_groups, aten.convolution_backward.default: convolve_groups_backward}


def keep_groups_whole(joint: JointGraph) -> JointGraph:
    """The same graph with such convolutions as operators of their own, or `joint` itself if there is none."""
    names = [
        node.name
        for node in joint.graph.nodes
        if node.target in GROUPS and isinstance(node.args[GROUPS[node.target]], Node)
    ]
    if not names:
        return joint
    new = joint.copy()
    for name in names:
        _replace(new, new.nodes[name])
    return new


def _replace(joint: JointGraph, node: Node) -> None:
    operands = node.all_input_nodes

    def run(*values: Any) -> Tensor | list[Tensor]:
        known = dict(zip(operands, values, strict=True))
        args = tree_map(lambda x: known[x] if isinstance(x, Node) else x, node.args)
        result: Tensor | list[Tensor] = WHOLE[node.target](*args)  # type: ignore[index]
        return result

    results = splice(joint.graph, run, operands)
    if node.target is aten.convolution.default:
        node.replace_all_uses_with(results[0])
    for user in list(node.users):
        assert user.target is operator.getitem, "a convolution's gradients are read one by one"
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
        joint.graph.erase_node(user)
    joint.graph.erase_node(node)
