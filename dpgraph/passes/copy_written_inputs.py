"""Pass: what reads an input that the forward writes gets a copy of what stood there before.

The new value of a buffer is copied into it when the forward has run. A backward that reads the old one, or computes
again what was computed from it, would find the new one there.
"""

from torch.fx import Node
from torch.utils.checkpoint import CheckpointPolicy

from dpgraph.capture.joint import JointGraph
from dpgraph.graphs.splice import splice
from dpgraph.torch_compat import in_own_memory

__all__ = ["copy_written_inputs"]


def copy_written_inputs(joint: JointGraph) -> JointGraph:
    """Put a copy in the place of every input that is written, made by the forward and never again."""
    new = joint.copy()
    for name in joint.written:
        before = new.nodes[name]
        if not before.users:
            continue
        (copy,) = splice(new.graph, in_own_memory, [before])
        copy.meta["recompute"] = CheckpointPolicy.MUST_SAVE

        def reads(user: Node, copy: Node = copy) -> bool:
            return user is not copy

        before.replace_all_uses_with(copy, delete_user_cb=reads)
    return new
