"""How many bytes a joint graph's forward keeps for its backward."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.place import find_module
from dpgraph.torch_compat import partition

__all__ = ["saved_activations"]


def saved_activations(joint: JointGraph, *, memory_budget: float) -> Mapping[str, int]:
    """Bytes that stay alive from forward to backward, by the module that computed them.

    The graph is partitioned as it is for running. Inputs and parameters are not counted: they are alive anyway. Values
    that share storage count once. Symbolic sizes are taken as they were at capture.

    Returns:
        module name -> bytes, in the order of the forward; "" is the model itself.
    """
    graph = joint.copy().graph
    module = GraphModule(joint.module, graph)
    forward, _ = partition(module, [], num_fwd_outputs=joint.num_forward_outputs, memory_budget=memory_budget)
    (returned,) = forward.graph.output_node().args
    saved: list[Any] = list(returned)[joint.num_forward_outputs :]  # type: ignore[arg-type]
    sizes: dict[str, int] = {}
    seen = {_storage(node) for node in forward.graph.find_nodes(op="placeholder")}
    for node in saved:
        value = node.meta.get("val") if isinstance(node, Node) else None
        if isinstance(value, Tensor) and _storage(node) not in seen:
            seen.add(_storage(node))
            name = find_module(node) or ""
            sizes[name] = sizes.get(name, 0) + _bytes(value)
    order = {name: i for i, name in enumerate(dict.fromkeys(find_module(n) or "" for n in forward.graph.nodes))}
    return MappingProxyType(dict(sorted(sizes.items(), key=lambda item: order.get(item[0], 0))))


def _storage(node: Node) -> int:
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else id(node)


def _bytes(value: Tensor) -> int:
    numel = 1
    for size in value.shape:
        numel *= size.node.hint if isinstance(size, torch.SymInt) else size
    return numel * value.element_size()
