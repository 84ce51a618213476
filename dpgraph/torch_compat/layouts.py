"""Where Inductor's choice of layouts ends in an error."""

import torch
from torch import SymInt, Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

__all__ = ["saves_varying_views"]

NUM_IMAGE_AXES = 4


def saves_varying_views(forward: GraphModule) -> bool:
    """Whether a forward saves a view, or the copy of one, of images or sequences whose size is a symbol.

    Around convolutions Inductor lays such values out with their channels last, and puts the strides, products of those
    sizes, into an order. It takes symbols for numbers there and fails ("cannot determine truth value of Relational").
    Without the choice of layouts nothing is ordered. Read in torch 2.13.
    """
    (outputs,) = forward.graph.output_node().args
    assert isinstance(outputs, (list, tuple))
    return any(isinstance(node, Node) and _is_view(node) and _varies(node.meta.get("val")) for node in outputs)


def _is_view(node: Node) -> bool:
    return node.target is torch.ops.aten.clone.default or (isinstance(node.target, OpOverload) and node.target.is_view)


def _varies(x: object) -> bool:
    """The first axis is that of the samples, of which no stride is a multiple."""
    return isinstance(x, Tensor) and x.ndim == NUM_IMAGE_AXES and any(isinstance(size, SymInt) for size in x.shape[1:])
