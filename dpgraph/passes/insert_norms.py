"""Pass: compute every sample's gradient norm, one for each group of parameters."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.certified import Certified, added_up, clipping_norm, share_of_error
from dpgraph.gradients.forms import norm_sq_terms
from dpgraph.graphs.splice import splice
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["insert_norms"]


def insert_norms(
    joint: JointGraph, gradients: Mapping[str, PerSampleGradient], group_of: Mapping[str, int], num_groups: int
) -> tuple[JointGraph, tuple[str, ...], tuple[str, ...]]:
    """Add the norms [B] of the samples' gradients over the parameters of each of the K groups.

    The true norm exceeds what is added by at most `certified.SHARE` of it. Each is scaled by the sample's loss scale,
    which the probe [B, 2, K] carries: 1 for a sum over the samples, the number of samples for a mean, 0 for a row that
    is padding.

    Returns:
        The new graph, and the names of two nodes [B] for each group: of the norms, and of the errors of their squares
        as shares of those.
    """
    new = joint.copy()
    probe = new.nodes[joint.probe]
    terms: list[list[Certified]] = [[] for _ in range(num_groups)]
    nodes: list[list[Node]] = [[] for _ in range(num_groups)]
    dtype = probe.meta["val"].dtype
    for parameter, gradient in gradients.items():
        operands = [new.nodes[name] for name in gradient.operands]
        found = [x.meta["val"].dtype for x in operands if x.meta["val"].is_floating_point()]
        dtype = torch.float64 if torch.float64 in found else dtype

        group = group_of[parameter]
        own = terms[group]

        def squared(
            *values: Tensor, gradient: PerSampleGradient = gradient, own: list[Certified] = own
        ) -> list[Tensor]:
            found = norm_sq_terms(gradient(values))
            own += found
            return [x for term in found for x in term.tensors()]

        nodes[group] += splice(new.graph, squared, operands)
    norms, shares = [], []
    for k, own in enumerate(terms):

        def norm(scales: Tensor, *values: Tensor, k: int = k, own: Sequence[Certified] = own) -> list[Tensor]:
            scale, tensors = scales[:, 0, k].to(dtype), iter(values)
            if not own:
                return [scale * 0, scale * 0]
            square, error = added_up([term.with_tensors(tensors) for term in own])
            return [clipping_norm(square, error).to(dtype) * scale, share_of_error(square, error).to(dtype)]

        of_norm, of_share = splice(new.graph, norm, [probe, *nodes[k]])
        norms.append(of_norm.name)
        shares.append(of_share.name)
    return new, tuple(norms), tuple(shares)
