"""Pass: rows that are picked out of the flattened batch by offsets are each sample's own, whatever the data hold.

Masked language models after the original BERT pick rows as `h.view(B * T, d)[offsets + arange(B)[:, None] * T]`. That
keeps the samples apart if each offset is one of 0 to T - 1, which the data decide: one out of range is a row of another
sample. With this pass it cannot be. An offset counts as in the sample's own rows [T, d], from the end if it is
negative; one beyond them, for which that sample alone would be an error, is taken for the nearest of them.
"""

from collections.abc import Callable, Iterator, Mapping

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
PICKING = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default}


def bound_offsets(joint: JointGraph, provenance: Mapping[Node, Results]) -> JointGraph:
    """The same graph with every such place brought into its sample's rows, or `joint` itself if there is none."""
    places = list(_unbounded(joint, provenance))
    if not places:
        return joint
    new = joint.copy()
    bounded: dict[str, Node] = {}
    for name, dim, found in places:
        node = new.nodes[name]
        rows, indices = node.args[0], list(node.args[1])  # type: ignore[arg-type]
        place = indices[dim]
        assert isinstance(rows, Node) and isinstance(place, Node)
        if place.name not in bounded:
            bounded[place.name], *_ = splice(new.graph, _within(found, dim), [place, rows, new.nodes[joint.probe]])
        indices[dim] = bounded[place.name]
        node.update_arg(1, indices)
    return new


def _unbounded(joint: JointGraph, provenance: Mapping[Node, Results]) -> Iterator[tuple[str, int, SamplePosition]]:
    """Nodes that pick rows at stride * b + r with nothing known of r, with the axis, of B * stride rows."""
    for node in joint.graph.nodes:
        if node.target not in PICKING:
            continue
        for dim, place in enumerate(node.args[1]):
            found = provenance.get(place) if place is not None else None
            if not isinstance(found, SamplePosition) or is_bounded(found) or found.outer != 1:
                continue
            num_rows = size_of(node.args[0].meta["val"].shape[dim], joint.batch_symbol)
            if sympy.expand(num_rows - joint.batch_symbol * found.stride) == 0:
                yield node.name, dim, found


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
