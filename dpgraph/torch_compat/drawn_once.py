"""Which operators draw random numbers: what they draw is saved by the partitioner, whatever its budget."""

import torch
from torch._functorch.partitioners import must_recompute
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.utils.checkpoint import CheckpointPolicy

__all__ = ["LEAST_BUDGET", "draws_numbers", "keep_random_values"]

# With a budget of 0 the partitioner saves nothing but the inputs, what is marked as to be saved neither.
LEAST_BUDGET = 1e-9

# What an operator that may draw random numbers calls the probability of dropping; with 0 it draws none.
PROBABILITY = "dropout_p"


def keep_random_values(graph: Graph) -> None:
    """Mark what is drawn at random: a backward that recomputed it would differentiate another function.

    Where activations are checkpointed, the partitioner itself replays the state of the generator.
    """
    for node in graph.nodes:
        if draws_numbers(node) and not must_recompute(node):
            node.meta["recompute"] = CheckpointPolicy.MUST_SAVE


def draws_numbers(node: Node) -> bool:
    """Whether a node calls an operator that draws random numbers; attention without dropout may, and does not."""
    if not isinstance(node.target, OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    if PROBABILITY not in names:
        return True
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    return bool(given.get(PROBABILITY, 0.0) != 0)
