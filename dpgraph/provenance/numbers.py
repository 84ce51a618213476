"""Numbers and sizes: those that come from data have a provenance, as tensors have.

The sizes of inputs are public, by assumption, and so is what is computed from them: `x.shape[1] // 2`. A number that is
read out of a tensor (`n.max().item()`) is data, and so is a size that values decide (`nonzero().shape[0]`): the tracer
makes a symbol of its own for each, an unbacked one, at the op that finds it. Such a symbol is shared if that op read
nothing of the samples, and is refused otherwise, wherever it turns up: as an argument, or in a shape alone.
"""

from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import Provenance, Refused, Shared, mixes, unshown
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.torch_compat import free_unbacked_symbols, tree_leaves

__all__ = [
    "COUNTS",
    "ITEM",
    "READS_SIZES",
    "Sizes",
    "earliest",
    "has_no_tensor",
    "note_input",
    "of_numbers",
    "of_size_read",
    "with_sizes",
]

aten = torch.ops.aten

Sizes = dict[sympy.Symbol, Shared | Refused]
"""What is known of each symbol that an op of the graph has made, since the walk came there."""

READS_SIZES = {aten.sym_size.int, aten.sym_numel.default, aten.sym_stride.int, aten.sym_storage_offset.default}
ITEM = "makes one number of the samples' values, which every sample then reads"
COUNTS = "makes as many values as the samples' values tell"


@transfer(aten._local_scalar_dense.default)
def item(step: Step) -> Provenance:
    """A number out of a tensor, of which some samples have a part."""
    return step.mixed(ITEM)


def note_input(node: Node, sizes: Sizes) -> None:
    """Sizes of inputs are public, those too that the tracer was asked to know nothing of."""
    sizes.update(dict.fromkeys(_symbols(node), Shared()))


def has_no_tensor(node: Node) -> bool:
    """Whether an op makes a number, or nothing, and no tensor."""
    return not any(isinstance(x, Tensor) for x in tree_leaves(node.meta.get("val")))


def of_size_read(node: Node, sizes: Sizes) -> Shared | Refused:
    """A size as a number: every sample has a part in a count, whatever may become of what is counted."""
    found = _of_sizes(node, sizes)
    if isinstance(found, Refused) and not set(_symbols(node)).isdisjoint(_symbols(found.origin)):
        return mixes(found.origin, COUNTS)
    return found


def _of_sizes(node: Node, sizes: Sizes) -> Shared | Refused:
    """What is known of all symbols in a number, or in the shape of each tensor, that an op has made."""
    for symbol in _symbols(node):
        found = sizes.get(symbol, unshown(node, "reads a size of which nothing is known"))
        if isinstance(found, Refused):
            return found
    return Shared()


def of_numbers(step: Step) -> Shared | Refused:
    """An op on numbers alone: a number made of shared ones is shared."""
    refused = [p for x in step.node.all_input_nodes if isinstance(p := step.known[x], Refused)]
    return earliest(refused) if refused else Shared()


def with_sizes(step: Step, results: Results, sizes: Sizes) -> Results:
    """`results`, unless a size of theirs is refused; notes the sizes that this op is the first to have."""
    new = [symbol for symbol in _symbols(step.node) if symbol not in sizes]
    if new:
        sizes.update(dict.fromkeys(new, _of_new_size(step, results)))
    found = _of_sizes(step.node, sizes)
    return found if isinstance(found, Refused) and not isinstance(results, Refused) else results


def earliest(refused: list[Refused]) -> Refused:
    """Where it began, in the order of the graph."""
    return min(refused, key=lambda p: p.origin)


def _of_new_size(step: Step, results: Results) -> Shared | Refused:
    decisive = _decisive(step)
    several = results if isinstance(results, tuple) else (results,)
    refused = [p for p in several if isinstance(p, Refused)]
    if decisive is None and refused:
        return earliest(refused)
    operands = step.node.all_input_nodes if decisive is None else decisive
    if all(p == Shared() for x in operands for p in _all(step.known[x])):
        return Shared()
    return earliest(refused) if refused else step.mixed(COUNTS)


def _decisive(step: Step) -> list[Node] | None:
    """The operands that decide the new size, if it is not all of them, whatever values the others have."""
    target: Any = step.node.target
    if target is aten.index.Tensor:  # by masks
        return [x for x in step.args[1] if x is not None]
    if target is aten.slice.Tensor:
        numbers = [x for x in (*step.args[2:], *step.node.kwargs.values()) if isinstance(x, Node)]
        lengths = [step.shape(step.args[0])[step.arg(1, "dim", 0)], *map(step.size, numbers)]
        return None if any(step.batch in n.free_symbols for n in lengths) else numbers
    return None


def _symbols(node: Node) -> Iterator[sympy.Symbol]:
    """The symbols that ops have made in a number, or in the shape of each tensor of the result."""
    for value in tree_leaves(node.meta.get("val")):
        for size in value.shape if isinstance(value, Tensor) else (value,):
            if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                yield from sorted(free_unbacked_symbols(size), key=str)


def _all(results: Results) -> tuple[Provenance, ...]:
    return results if isinstance(results, tuple) else (results,)
