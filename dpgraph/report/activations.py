"""How many bytes a joint graph's forward keeps for its backward."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.place import find_module
from dpgraph.memory.predict import split
from dpgraph.options import CompileOptions
from dpgraph.torch_compat import size_hint, storage_of

__all__ = ["saved_activations"]


def saved_activations(joint: JointGraph, options: CompileOptions | None) -> Mapping[str, int]:
    """Bytes that stay alive from forward to backward, by the module that computed them.

    Inputs and parameters are not counted: they are alive anyway. Values that share storage count once, with all of it.
    Copies that the backend makes of what is saved (Inductor: a convolution's weight in another layout) are not seen
    here; `dpgraph.memory.predict` has them. Symbolic sizes are taken as they were at capture.

    Args:
        joint: the graph.
        options: it is partitioned as it is for running with these; None: as autograd would, where the backward reads
            what the forward computed and nothing is computed again.

    Returns:
        module name -> bytes, in the order of the forward; "" is the model itself.
    """
    saved = _read_by_backward(joint) if options is None else _kept_by_partition(joint, options)
    sizes: dict[str, int] = {}
    seen = {_storage(node) for node in joint.graph.find_nodes(op="placeholder")}
    for node in saved:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and _storage(node) not in seen:
            seen.add(_storage(node))
            name = find_module(node) or ""
            sizes[name] = sizes.get(name, 0) + size_hint(value.untyped_storage().nbytes())
    order = {name: i for i, name in enumerate(dict.fromkeys(find_module(n) or "" for n in joint.graph.nodes))}
    return MappingProxyType(dict(sorted(sizes.items(), key=lambda item: order.get(item[0], 0))))


def _kept_by_partition(joint: JointGraph, options: CompileOptions) -> list[Node]:
    """What the partitioner lets the forward return on top of its own outputs."""
    (returned,) = split(joint, options).forward.graph.output_node().args
    assert isinstance(returned, (tuple, list))
    return [x for x in returned[joint.num_forward_outputs :] if isinstance(x, Node)]


def _read_by_backward(joint: JointGraph) -> list[Node]:
    """Values that the forward's outputs are made of and something else reads too."""
    outputs, n = joint.outputs, joint.num_forward_outputs
    forward = _needed_for(x for x in outputs[:n] if x is not None)
    backward = _needed_for(x for x in outputs[n:] if x is not None) - forward
    read = {operand for node in backward for operand in node.all_input_nodes}
    read |= {x for x in outputs[n:] if x is not None}
    return [node for node in joint.graph.nodes if node in read and node in forward and node.op != "placeholder"]


def _needed_for(outputs: Iterable[Node]) -> set[Node]:
    needed, todo = set[Node](), list(outputs)
    while todo:
        node = todo.pop()
        if node not in needed:
            needed.add(node)
            todo += node.all_input_nodes
    return needed


def _storage(node: Node) -> int:
    value = node.meta.get("val")
    return storage_of(value) if isinstance(value, Tensor) else id(node)
