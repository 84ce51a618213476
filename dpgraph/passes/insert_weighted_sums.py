"""Pass: replace every trained parameter's gradient by the weighted sum of its per-sample gradients."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.forms import weighted_sum
from dpgraph.graphs.splice import splice
from dpgraph.sites.evaluate import SiteFunction

__all__ = ["insert_weighted_sums"]


def insert_weighted_sums(
    joint: JointGraph, sites: Sequence[SiteFunction], group_of: Mapping[str, int], weights: str
) -> JointGraph:
    """Put sum_b w_b G_b, with the weights [B, K] of the parameter's group, in the place of sum_b G_b."""
    new = joint.copy()
    changes = {}
    for site in sites:
        gradient = new.nodes[site.site.gradient].meta["val"]
        group = group_of[site.site.parameter]

        def clipped(
            w: Tensor, *values: Tensor, site: SiteFunction = site, group: int = group, like: Tensor = gradient
        ) -> Tensor:
            return weighted_sum(site(*values), w[:, group]).to(like.dtype).reshape(like.shape)

        operands = [new.nodes[name] for name in (weights, *site.operands)]
        changes[joint.gradients[site.site.parameter]] = splice(new.graph, clipped, operands)
    new.set_outputs(changes)
    return new
