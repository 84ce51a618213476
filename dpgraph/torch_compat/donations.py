"""Which of its inputs a backward may overwrite."""

from torch import Tensor
from torch._guards import TracingContext
from torch.fx import GraphModule

from dpgraph.torch_compat.tracing import storage_of

__all__ = ["keep_what_is_saved_twice"]


def keep_what_is_saved_twice(backward: GraphModule) -> str:
    """Let a backward overwrite no memory that it is given under two names; a text that says what it may.

    AOTAutograd donates each saved value to the backward whose memory belongs to no input or output; that two saved ones
    may be views of one memory it does not ask. Inductor takes them for two values, writes into one after its own last
    use, and reads the other afterwards. The text belongs into the key of what is compiled, as Inductor's cache
    does not look at donations. Read in torch 2.13.
    """
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None or metadata.bw_donated_idxs is None:
        return ""
    values = [node.meta.get("val") for node in backward.graph.find_nodes(op="placeholder")]
    memory = [storage_of(x) if isinstance(x, Tensor) else None for x in values]
    metadata.bw_donated_idxs = [i for i in metadata.bw_donated_idxs if memory.count(memory[i]) == 1]
    return f"may overwrite {metadata.bw_donated_idxs}"
