"""Pass: cut the gradient branches of parameters that are not trained, and whatever only fed them."""

from collections.abc import Iterable

from dpgraph.capture.joint import JointGraph

__all__ = ["prune"]


def prune(joint: JointGraph, trained: Iterable[str]) -> JointGraph:
    """Drop the gradients of all parameters but the trained ones, and all dead code."""
    kept = set(trained)
    new = joint.copy()
    new.set_outputs({position: None for name, position in joint.gradients.items() if name not in kept})
    new.graph.eliminate_dead_code()
    return new
