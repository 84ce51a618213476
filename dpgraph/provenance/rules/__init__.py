"""Transfer rules by family; importing this package registers them all."""

from dpgraph.provenance.rules import batched, contractions, indexing, pointwise, reductions, views
from dpgraph.provenance.rules.pointwise import READS_SHAPE_ONLY

__all__ = ["READS_SHAPE_ONLY", "batched", "contractions", "indexing", "pointwise", "reductions", "views"]
