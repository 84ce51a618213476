"""Which values of a graph share memory, as the fake tensors of its nodes say it.

A pass that puts one value in the place of another (a tensor in that of its `clone`, say) changes whose memory the views
of it lie in; Inductor's passes over a joint graph leave the fake tensors of those views as they were. AOTAutograd reads
them to find what only the backward reads, whose memory the backward may then overwrite: the memory of an output, if it
is saved as a view that seems to be of something else.
"""

from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from dpgraph.torch_compat.tracing import storage_of

__all__ = ["restore_aliases"]


def restore_aliases(graph: Graph) -> None:
    """Let each view's fake tensor lie in the memory of the fake tensor that it is a view of."""
    for node in graph.nodes:
        if _is_view(node) and not _is_in_memory_of_its_base(node):
            args, kwargs = tree_map_only(Node, _value, (node.args, node.kwargs))
            with args[0].fake_mode:
                node.meta["val"] = node.target(*args, **kwargs)
        elif _is_part(node):
            node.meta["val"] = _value(node.args[0])[node.args[1]]


def _is_view(node: Node) -> bool:
    target = node.target
    if not isinstance(target, OpOverload) or not target.is_view or not node.args:
        return False
    return isinstance(_value(node.args[0]), FakeTensor)


def _is_part(node: Node) -> bool:
    """Whether a node takes one of the views that an op returns."""
    source = node.args[0] if node.args else None
    return isinstance(source, Node) and _is_view(source) and isinstance(_value(source), (list, tuple))


def _is_in_memory_of_its_base(node: Node) -> bool:
    memory = storage_of(_value(node.args[0]))
    return all(storage_of(x) == memory for x in tree_leaves(_value(node)) if isinstance(x, Tensor))


def _value(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, Node) else node
