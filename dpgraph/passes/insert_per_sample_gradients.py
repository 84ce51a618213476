"""Pass: compute the tensors that every site's per-sample gradient is made of."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.forms import Gradient, tensors_of, with_tensors
from dpgraph.graphs.splice import splice
from dpgraph.sites.evaluate import SiteFunction
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["insert_per_sample_gradients"]


def insert_per_sample_gradients(
    joint: JointGraph, sites: Sequence[SiteFunction]
) -> tuple[JointGraph, Mapping[str, PerSampleGradient]]:
    """Evaluate every site once, for the norms and the weighted sums to read.

    Returns:
        The new graph, and each parameter's per-sample gradient in it.
    """
    new = joint.copy()
    gradients = {}
    for site in sites:
        traced: list[Gradient] = []

        def held(*values: Tensor, site: SiteFunction = site, traced: list[Gradient] = traced) -> list[Tensor]:
            traced.append(site(*values))
            return tensors_of(traced[-1])

        nodes = splice(new.graph, held, [new.nodes[name] for name in site.operands])
        forms = with_tensors(traced[-1], [node.meta["val"] for node in nodes])
        gradients[site.site.parameter] = PerSampleGradient(forms, tuple(node.name for node in nodes))
    return new, gradients
