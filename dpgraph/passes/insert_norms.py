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
) -> tuple[JointGraph, tuple[str, ...]]:
    """Add the norms [B] of the samples' gradients over the parameters of each of the K groups.

    Each is scaled by the sample's loss scale, which the probe [B, K] carries: 1 for a sum over the samples, the
    number of samples for a mean, 0 for a row that is padding.

    Returns:
        The new graph, and the names of the nodes of the norms, one for each group.
    """
    new = joint.copy()
    probe = new.nodes[joint.probe]
    terms: list[list[Node]] = [[] for _ in range(num_groups)]
    for parameter, gradient in gradients.items():

        def squared(*values: Tensor, gradient: PerSampleGradient = gradient) -> list[Tensor]:
            return norm_sq_terms(gradient(values))

        terms[group_of[parameter]] += splice(new.graph, squared, [new.nodes[name] for name in gradient.operands])
    dtypes = [term.meta["val"].dtype for own in terms for term in own] or [probe.meta["val"].dtype]
    dtype = max(dtypes, key=lambda d: torch.finfo(d).bits)
    norms = []
    for k, own in enumerate(terms):

        def norm(scales: Tensor, *own: Tensor, k: int = k) -> Tensor:
            """sqrt of the sum of squares; a rounding error below 0 is 0, and NaN stays NaN."""
            scale = scales[:, k].to(dtype)
            if not own:
                return scale * 0
            # Stacked, and not added one by one: a fused chain of additions would put every term off to the last one.
            return torch.stack([t.to(dtype) for t in own]).sum(0).clamp_min(0).sqrt() * scale

        (inserted,) = splice(new.graph, norm, [probe, *own])
        norms.append(inserted.name)
    return new, tuple(norms)
