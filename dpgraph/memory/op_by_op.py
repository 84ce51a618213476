"""The kernels of a graph that is run op by op, as the eager backend does."""

import operator
from collections.abc import Iterator
from types import MappingProxyType

import sympy
from torch import Tensor
from torch.fx import Graph, Node

from dpgraph.capture.place import find_module
from dpgraph.memory.program import Allocation, Kernel, Program, bytes_of
from dpgraph.torch_compat import storage_of, tree_leaves

__all__ = ["run_op_by_op"]


def run_op_by_op(graph: Graph) -> Program:
    """Every op is a kernel; a value is freed after the op that reads it, or a view of it, last.

    What an operator allocates inside itself and frees again is not seen.
    """
    nodes = [n for n in graph.nodes if n.op not in ("placeholder", "output")]
    position = {node: i for i, node in enumerate(nodes)}
    storage: dict[Node, tuple[str, ...]] = {}
    for node in graph.nodes:
        storage[node] = tuple(_storages(node, storage))
    end = len(nodes) - 1
    returned = tree_leaves(graph.output_node().args)
    last: dict[str, int] = {}
    for node in graph.nodes:
        users = [end if u.op == "output" else position[u] for u in node.users]
        for name in storage[node]:
            last[name] = max(last.get(name, -1), *users, position.get(node, -1))
    allocations = {
        name: Allocation(size, find_module(node) or "", position[node], last[name])
        for node in nodes
        for name, size in _made(node, storage[node])
    }
    return Program(
        kernels=tuple(Kernel(str(n.target), find_module(n) or "", frozenset([n.name])) for n in nodes),
        allocations=MappingProxyType(allocations),
        inputs=MappingProxyType({n.name: last[n.name] for n in graph.find_nodes(op="placeholder")}),
        returned=tuple(x.name if isinstance(x, Node) else None for x in returned),
        storage=MappingProxyType({x.name: storage[x][0] for x in returned if isinstance(x, Node) and storage[x]}),
        overwrites=MappingProxyType({}),
    )


def _storages(node: Node, known: dict[Node, tuple[str, ...]]) -> Iterator[str]:
    """Names of the memory that a node's results lie in, one for each tensor among them."""
    if node.op == "placeholder":
        yield node.name
        return
    if node.target is operator.getitem:
        (source, index) = node.args
        tensors = [i for i, x in enumerate(source.meta["val"]) if isinstance(x, Tensor)]  # type: ignore[union-attr]
        yield known[source][tensors.index(index)]  # type: ignore[index, arg-type]
        return
    owners = {storage_of(x.meta["val"]): known[x][0] for x in node.all_input_nodes if _is_tensor(x) and known[x]}
    results = [x for x in tree_leaves(node.meta.get("val")) if isinstance(x, Tensor)]
    for i, value in enumerate(results):
        own = node.name if len(results) == 1 else f"{node.name}[{i}]"
        yield owners.get(storage_of(value), own)


def _made(node: Node, names: tuple[str, ...]) -> Iterator[tuple[str, sympy.Expr]]:
    values = [x for x in tree_leaves(node.meta.get("val")) if isinstance(x, Tensor)]
    if node.target is operator.getitem:
        return
    for name, value in zip(names, values, strict=True):
        if name == node.name or name.startswith(f"{node.name}["):
            yield name, bytes_of(value)


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)
