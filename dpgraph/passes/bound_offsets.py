"""Pass: rows that are picked out of the flattened batch by offsets are each sample's own, whatever the data hold.

Masked language models after the original BERT pick rows as `h.view(B * T, d)[offsets + arange(B)[:, None] * T]`. That
keeps the samples apart if each offset is one of 0 to T - 1, which the data decide: one out of range is a row of another
sample. With this pass it cannot be. An offset counts as in the sample's own rows [T, d], from the end if it is
negative; one beyond them, for which that sample alone would be an error, is taken for the nearest of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.capture.sizes import size_of
from dpgraph.graphs.splice import splice
from dpgraph.provenance.lattice import SamplePosition
from dpgraph.provenance.registry import Results
from dpgraph.provenance.rules.positions import is_bounded

__all__ = ["bound_offsets"]

aten = torch.ops.aten
AT_INDICES = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default}
ALONG_AN_AXIS = {
    aten.gather.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
}


def bound_offsets(joint: JointGraph, provenance: Mapping[Node, Results]) -> JointGraph:
    """The same graph with every such place brought into its sample's rows, or `joint` itself if there is none."""
    places = list(_unbounded(joint, provenance))
    if not places:
        return joint
    new = joint.copy()
    bounded: dict[str, Node] = {}
    for name, dim, place, found in places:
        node = new.nodes[name]
        rows = node.args[0]
        assert isinstance(rows, Node)
        if place not in bounded:
            bounded[place], *_ = splice(
                new.graph, _within(found, dim), [new.nodes[place], rows, new.nodes[joint.probe]]
            )
        node.replace_input_with(new.nodes[place], bounded[place])
    return new


def _unbounded(joint: JointGraph, provenance: Mapping[Node, Results]) -> Iterator[tuple[str, int, str, SamplePosition]]:
    """Ops on rows at places stride * b + r with nothing known of r, with the axis of the B * stride rows."""
    for node in joint.graph.nodes:
        for dim, place in _picks(node):
            found = provenance[place]
            if not isinstance(found, SamplePosition) or is_bounded(found) or found.outer != 1:
                continue
            num_rows = size_of(node.args[0].meta["val"].shape[dim], joint.batch_symbol)
            if sympy.expand(num_rows - joint.batch_symbol * found.stride) == 0:
                yield node.name, dim, place.name, found


def _picks(node: Node) -> Iterator[tuple[int, Node]]:
    """Where an op reads or writes rows of its first operand: along which axis, at which places."""
    rows: Any = node.args[0] if node.args else None
    if node.target in AT_INDICES:
        indices: Any = node.args[1]
        yield from ((dim, place) for dim, place in enumerate(indices) if place is not None)
    elif node.target in ALONG_AN_AXIS and rows.meta["val"].ndim > 0:
        dim, place = node.args[1:3]
        assert isinstance(dim, int) and isinstance(place, Node)
        yield dim % rows.meta["val"].ndim, place


def _within(found: SamplePosition, dim: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(places, rows, probe) to places in the rows of each sample, of which there are `rows.shape[dim] / B`."""

    def within(places: Tensor, rows: Tensor, probe: Tensor) -> Tensor:
        num_samples = probe.shape[0]
        stride, inner = rows.shape[dim] // num_samples, places.shape[found.axis] // num_samples
        first = torch.arange(num_samples, device=places.device) * stride
        behind = [1] * (places.ndim - found.axis - 1)
        first = first.unsqueeze(1).expand(num_samples, inner).reshape(num_samples * inner, *behind)
        offset = places - first
        offset = torch.where(offset < 0, offset + stride, offset)
        return first + offset.clamp(0, stride - 1)

    return within
