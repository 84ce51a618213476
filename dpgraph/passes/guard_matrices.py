"""Pass: let a matrix that has no decomposition concern its own sample.

`eigh`, `svd` and `eig` stop the program if a value of one matrix of a stack is not finite, so that one record would
decide whether the others are trained on. Such a matrix is replaced by a diagonal one with different values, and what
comes out for it by NaN: that sample's gradient is not finite, so it gets factor 0 and is counted.
"""

import math
import operator

import sympy
import torch
from torch import Tensor
from torch.fx import Graph, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.sizes import size_of
from dpgraph.graphs.splice import splice
from dpgraph.torch_compat import find_operators

__all__ = ["GUARDED", "guard_matrices"]

GUARDED = find_operators("aten._linalg_eigh.default", "aten._linalg_svd.default", "aten.linalg_eig.default")

# Where a node came from: what is refused at a guard is refused at the user's line.
TOLD = ("stack_trace", "nn_module_stack", "original_aten", "fwd_stack_trace", "fwd_nn_module_stack")


def guard_matrices(joint: JointGraph) -> JointGraph:
    """Guard every decomposition of a stack of matrices [*, m, n] that fails for values that are not finite."""
    if not any(node.target in GUARDED for node in joint.graph.nodes):
        return joint
    new = joint.copy()
    for target in GUARDED:
        for node in new.graph.find_nodes(op="call_function", target=target):
            if not _has_samples_within(node, joint.batch_symbol):
                _guard(new.graph, node)
    return new


def _has_samples_within(node: Node, batch: sympy.Symbol) -> bool:
    """Whether samples are rows or columns of a matrix, which is refused as it is."""
    return any(batch in size_of(n, batch).free_symbols for n in node.args[0].meta["val"].shape[-2:])  # type: ignore[union-attr]


def _guard(graph: Graph, node: Node) -> None:
    matrices = node.args[0]
    assert isinstance(matrices, Node)
    before = set(graph.nodes)
    finite, safe = splice(graph, _replace, [matrices])
    node.replace_input_with(matrices, safe)
    for result in [user for user in node.users if user.target is operator.getitem]:
        (marked,) = splice(graph, _mark, [result, finite])
        for user in [x for x in result.users if x is not marked]:
            user.replace_input_with(result, marked)
    for made in graph.nodes:
        if made not in before:
            made.meta.update({key: node.meta[key] for key in TOLD if key in node.meta})


def _replace(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each matrix is finite [*, 1, 1], and the matrices with diag(1, 2, ...) in place of one that is not."""
    finite = torch.isfinite(matrices).all(-1, keepdim=True).all(-2, keepdim=True)
    rows, columns = (torch.arange(1, 1 + n, device=matrices.device, dtype=torch.float32) for n in matrices.shape[-2:])
    diagonal = torch.where(rows[:, None] == columns, columns, 0).to(matrices.dtype)
    return finite, torch.where(finite, matrices, diagonal)


def _mark(result: Tensor, finite: Tensor) -> Tensor:
    """NaN for matrices that were replaced; results have the axes [*] and one or two more."""
    missing = finite.ndim - result.ndim
    return torch.where(finite.squeeze(-1) if missing else finite, result, math.nan)
