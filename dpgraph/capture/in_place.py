"""Refuse a joint graph in which something is written in place: what is written must be among the outputs."""

from torch.fx import Graph, Node

from dpgraph.capture.place import find_place
from dpgraph.errors import UnsupportedProgramError
from dpgraph.torch_compat import OpOverload

__all__ = ["refuse_writes_in_place"]


def refuse_writes_in_place(graph: Graph) -> None:
    """The analysis reads values off the graph, and a write in place would change one without a node that says so.

    Raises:
        UnsupportedProgramError: an operator writes into an operand.
    """
    for node in graph.nodes:
        if writes_in_place(node):
            raise UnsupportedProgramError(
                f"the captured graph writes into {node.all_input_nodes[0].name} in place",
                place=find_place(node),
                why="a buffer that is written where no analysis sees it carries samples from one step to the next",
                fix="compute a new tensor instead, and return it",
            )


def writes_in_place(node: Node) -> bool:
    """Whether an operator writes into an operand."""
    return isinstance(node.target, OpOverload) and bool(node.target._schema.is_mutable) and bool(node.all_input_nodes)
