"""Pass: what is written into by index is first copied into memory of its own.

A functional write (`index_put`, `slice_scatter`) gives a new tensor. Inductor makes it in place where nobody reads the
old one any more, and does not ask whether elements of the old one share memory, as those of an expanded tensor or of
overlapping windows do: a write into one is then a write into all of them. Whether they do cannot be read off the graph
here, since later simplifications put an expanded tensor in the place of its sum with zeros. Where the copy is not
needed it is fused into what computes the base.
"""

from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.graphs.splice import splice
from dpgraph.torch_compat import find_packets, in_own_memory

__all__ = ["WRITES", "copy_bases_of_writes"]

# Whose result is the first operand, but for the places that are written. `as_strided_scatter` is not among them: what
# it means depends on where the elements of its base lie.
WRITES = frozenset(
    find_packets(
        "aten._unsafe_index_put",
        "aten._unsafe_masked_index_put_accumulate",
        "aten.diagonal_scatter",
        "aten.index_add",
        "aten.index_copy",
        "aten.index_fill",
        "aten.index_put",
        "aten.index_reduce",
        "aten.masked_scatter",
        "aten.put",
        "aten.scatter",
        "aten.scatter_add",
        "aten.scatter_reduce",
        "aten.select_scatter",
        "aten.slice_scatter",
    )
)

# Their results lie in new memory and stay what they are: no simplification takes another tensor for them.
NEW = frozenset(
    find_packets(
        "aten.empty",
        "aten.empty_like",
        "aten.full",
        "aten.full_like",
        "aten.new_full",
        "aten.new_zeros",
        "aten.zeros",
        "aten.zeros_like",
        "dpgraph.computed_once",
    )
) | (WRITES - frozenset(find_packets("aten.slice_scatter")))  # a slice of everything is taken for what is written


def copy_bases_of_writes(joint: JointGraph) -> JointGraph:
    """Put a copy in the place of the first operand of every write by index, unless that is new memory for sure."""
    new = joint.copy()
    for node in list(new.graph.nodes):
        if _packet(node) in WRITES:
            base = node.args[0]
            if _packet(base) not in NEW:
                (copy,) = splice(new.graph, in_own_memory, [base])
                node.update_arg(0, copy)
    return new


def _packet(node: Node) -> object:
    return getattr(node.target, "overloadpacket", None)
