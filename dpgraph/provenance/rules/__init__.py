"""Transfer rules by family; importing this package registers them all."""

from dpgraph.provenance.rules import (
    batched,
    contractions,
    convolutions,
    creations,
    distances,
    indexing,
    linear_algebra,
    parts,
    pointwise,
    reductions,
    views,
)
from dpgraph.provenance.rules.creations import CREATIONS, SHAPED_BY_SIZES, TAKES_SIZES, operands_read

__all__ = [
    "CREATIONS",
    "SHAPED_BY_SIZES",
    "TAKES_SIZES",
    "batched",
    "contractions",
    "convolutions",
    "creations",
    "distances",
    "indexing",
    "linear_algebra",
    "operands_read",
    "parts",
    "pointwise",
    "reductions",
    "views",
]
