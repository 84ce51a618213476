"""Pass: compute every sample's gradient norm, one for each group of parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.forms import norm_sq_terms
from dpgraph.graphs.splice import splice
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["insert_norms"]


def insert_norms(
    joint: JointGraph, gradients: Mapping[str, PerSampleGradient], group_of: Mapping[str, int], num_groups: int
) -> tuple[JointGraph, str]:
    """Add the norms [B, K] of the samples' gradients over the parameters of each of the K groups.

    Each is scaled by the sample's loss scale, which the probe [B, K] carries: 1 for a sum over the samples, the
    number of samples for a mean, 0 for a row that is padding.

    Returns:
        The new graph, and the name of the node of the norms.
    """
    new = joint.copy()
    terms: list[Node] = []
    columns: list[int] = []
    for parameter, gradient in gradients.items():

        def squared(*values: Tensor, gradient: PerSampleGradient = gradient) -> list[Tensor]:
            return norm_sq_terms(gradient(values))

        found = splice(new.graph, squared, [new.nodes[name] for name in gradient.operands])
        terms += found
        columns += [group_of[parameter]] * len(found)

    def norms(probe: Tensor, *terms: Tensor) -> Tensor:
        """sqrt of the sums of squares; a rounding error below 0 is 0, and NaN stays NaN."""
        if not terms:
            return probe * 0
        dtype = max((t.dtype for t in terms), key=lambda d: torch.finfo(d).bits)
        totals = []
        for k in range(num_groups):
            # Stacked, and not added one by one: a fused chain of additions would put every term off to the last one.
            own = [t.to(dtype) for t, column in zip(terms, columns, strict=True) if column == k]
            totals.append(torch.stack(own).sum(0) if own else probe[:, 0].to(dtype) * 0)
        return torch.stack(totals, dim=1).clamp_min(0).sqrt() * probe.to(dtype)

    (inserted,) = splice(new.graph, norms, [new.nodes[joint.probe], *terms])
    return new, inserted.name
