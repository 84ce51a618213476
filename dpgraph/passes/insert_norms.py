"""Pass: compute every sample's gradient norm, one for each group of parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.forms import norm_sq
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
    squares = []
    for gradient in gradients.values():

        def squared(*values: Tensor, gradient: PerSampleGradient = gradient) -> Tensor:
            return norm_sq(gradient(values))

        squares += splice(new.graph, squared, [new.nodes[name] for name in gradient.operands])
    columns = [group_of[parameter] for parameter in gradients]

    def norms(probe: Tensor, *squares: Tensor) -> Tensor:
        """sqrt of the sums of squares; a rounding error below 0 is 0, and NaN stays NaN."""
        if not squares:
            return probe * 0
        dtype = max((s.dtype for s in squares), key=lambda d: torch.finfo(d).bits)
        zero = probe[:, 0].to(dtype) * 0
        totals = [
            sum((s.to(dtype) for s, column in zip(squares, columns, strict=True) if column == k), start=zero)
            for k in range(num_groups)
        ]
        return torch.stack(totals, dim=1).clamp_min(0).sqrt() * probe.to(dtype)

    (inserted,) = splice(new.graph, norms, [new.nodes[joint.probe], *squares])
    return new, inserted.name
