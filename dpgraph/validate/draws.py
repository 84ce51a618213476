"""Random numbers in two runs of one graph: which node draws which numbers.

Op by op every random operator draws from torch's generator in turn. Inductor draws one seed for each `rand`, `randn`
and `randint` at once, and makes their numbers of seed and place; other random operators it leaves to torch, at a time
of its choice. So that both runs have the same numbers, an op-by-op run makes Inductor's of Inductor's seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from dpgraph.torch_compat import INDUCTOR_RANDINT, INDUCTOR_RANDOM, OpOverload, draws_numbers, tree_leaves

__all__ = ["SEEDED", "Draw", "Draws", "Seed", "depends_on_draws", "find_draws", "is_random", "match_draws"]

aten = torch.ops.aten
SEEDED = {
    aten.rand.default: "rand",
    aten.rand.generator: "rand",
    aten.randn.default: "randn",
    aten.randn.generator: "randn",
    aten.randint.low: "randint",
}


@dataclass(frozen=True, slots=True)
class Seed:
    """One of the seeds that Inductor draws on a device: the `slot`-th of `count`."""

    slot: int
    count: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class Draw:
    """A node that draws.

    Attributes:
        node: its name.
        kind: "rand", "randn", "randint", or another operator.
        shape: of what it draws, as text.
        device: whose generator it draws from; None if that is not known.
        seed: Inductor's seed; None if it draws from torch's generator.
    """

    node: str
    kind: str
    shape: str
    device: torch.device | None
    seed: Seed | None


@dataclass(frozen=True, slots=True)
class Draws:
    """How an op-by-op run gets the numbers of the compiled one.

    Attributes:
        seeds: Inductor's seed for each node that has one.
        in_order: whether the compiled graph surely draws in the order of the operators.
        unmatched: why it is not known what the compiled graph draws; None if it is.
    """

    seeds: Mapping[str, Seed]
    in_order: bool
    unmatched: str | None = None


def find_draws(graph: Graph) -> tuple[Draw, ...]:
    """Every node that draws, in order; after Inductor's passes too."""
    found = []
    for node in graph.nodes:
        if node.op == "call_function" and is_random(node):
            value = node.meta.get("val")
            device = value.device if isinstance(value, torch.Tensor) else None
            seeded = node.target in (INDUCTOR_RANDOM, INDUCTOR_RANDINT)
            shape = str(list(value.shape)) if isinstance(value, torch.Tensor) else ""
            found.append(Draw(node.name, _kind(node), shape, device, _seed(node) if seeded else None))
    return tuple(found)


def is_random(node: Node) -> bool:
    """Whether a node draws numbers, or runs a graph that does."""
    if node.target in (INDUCTOR_RANDOM, INDUCTOR_RANDINT):
        return True
    if isinstance(node.target, OpOverload):
        seeds = str(node.target) in ("prims.inductor_seeds.default", "prims.inductor_seed.default")
        return draws_numbers(node) and not seeds
    return any(is_random(inner) for graph in _inner_graphs(node) for inner in graph.nodes)


def depends_on_draws(graph: Graph) -> set[Node]:
    """Every node whose value depends on random numbers."""
    found: set[Node] = set()
    for node in graph.nodes:
        if (node.op == "call_function" and is_random(node)) or any(x in found for x in node.all_input_nodes):
            found.add(node)
    return found


def match_draws(graph: Graph, compiled: Sequence[Draw] | None) -> Draws:
    """How to draw op by op what a graph draws that Inductor compiled.

    Args:
        graph: the rewritten joint graph.
        compiled: what Inductor's passes made of its random operators; None if that was not seen.
    """
    here = find_draws(graph)
    if not here:
        return Draws({}, in_order=True)
    if compiled is None:
        return Draws({}, in_order=False, unmatched="what the backend made of random operators was not seen")
    if [(d.kind, d.shape) for d in here] != [(d.kind, d.shape) for d in compiled]:
        return Draws({}, in_order=False, unmatched="the backend replaced random operators by others")
    seeds = {d.node: c.seed for d, c in zip(here, compiled, strict=True) if c.seed is not None}
    return Draws(seeds, in_order=_one_event_each(compiled))


def _one_event_each(draws: Iterable[Draw]) -> bool:
    """Whether each generator is asked once: all seeds of a device are drawn at once."""
    events = [(d.device, "seeds" if d.seed is not None else d.node) for d in draws]
    devices = [device for device, _ in set(events)]
    return len(devices) == len(set(devices)) and None not in devices


def _kind(node: Node) -> str:
    if node.target == INDUCTOR_RANDOM:
        return str(node.args[2])
    if node.target == INDUCTOR_RANDINT:
        return "randint"
    return SEEDED.get(node.target, str(node.target))  # type: ignore[call-overload, no-any-return]


def _seed(node: Node) -> Seed | None:
    """Read the seed of `inductor_random(size, inductor_lookup_seed(inductor_seeds(count, device), slot), mode)`."""
    lookup = node.args[1 if node.target == INDUCTOR_RANDOM else 3]
    assert isinstance(lookup, Node), "a seed is a node"
    seeds, slot = lookup.args[:2]
    if not (isinstance(seeds, Node) and isinstance(slot, int) and isinstance(seeds.args[0], int)):
        return None
    return Seed(slot, seeds.args[0], torch.device(seeds.args[1]))  # type: ignore[arg-type]


def _inner_graphs(node: Node) -> Iterable[Graph]:
    """Graphs that a node of higher order runs."""
    owner = node.graph.owning_module
    for x in tree_leaves((node.args, node.kwargs)):
        if isinstance(x, Node) and x.op == "get_attr" and owner is not None:
            inner = getattr(owner, str(x.target), None)
            if isinstance(inner, torch.fx.GraphModule):
                yield inner.graph
