"""Pass: cut the gradient branches of parameters that are not trained, and whatever only fed them."""

import operator
from collections.abc import Iterable

from torch.fx import Graph, Node

from dpgraph.capture.joint import JointGraph
from dpgraph.torch_compat import OpOverload

__all__ = ["prune"]

# The argument by which an op is told which of its results to compute.
MASK = "output_mask"


def prune(joint: JointGraph, trained: Iterable[str]) -> JointGraph:
    """Drop the gradients of all parameters but the trained ones, and all dead code.

    An op that computes several gradients at once, as a convolution's backward does, is told to leave out those that
    nobody reads.
    """
    kept = set(trained)
    new = joint.copy()
    new.set_outputs({position: None for name, position in joint.gradients.items() if name not in kept})
    new.graph.eliminate_dead_code()
    _leave_out_unread_results(new.graph)
    return new


def _leave_out_unread_results(graph: Graph) -> None:
    for node in graph.nodes:
        position = _position_of_mask(node)
        if position is None or not all(user.target is operator.getitem for user in node.users):
            continue
        read = {user.args[1] for user in node.users}
        mask = [wanted and i in read for i, wanted in enumerate(node.args[position])]
        node.update_arg(position, mask)
        node.meta["val"] = tuple(
            value if wanted else None for value, wanted in zip(node.meta["val"], mask, strict=True)
        )


def _position_of_mask(node: Node) -> int | None:
    """Where among the arguments of a call the mask of its results stands, if it has one."""
    if not isinstance(node.target, OpOverload):
        return None
    names = [argument.name for argument in node.target._schema.arguments]
    return names.index(MASK) if MASK in names and names.index(MASK) < len(node.args) else None
