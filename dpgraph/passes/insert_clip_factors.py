"""Pass: turn norms into the weights of the samples."""

import torch
from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.clipping import ClippingFunction
from dpgraph.graphs.splice import splice

__all__ = ["insert_clip_factors"]


def insert_clip_factors(
    joint: JointGraph, norms: str, clipping: ClippingFunction, max_norm: float
) -> tuple[JointGraph, str]:
    """Add the weights [B, K]: clip factor times loss scale, 0 where the norm is not finite.

    Also lets the norms leave the graph: they become the gradient of the probe.

    Returns:
        The new graph, and the name of the node of the weights.
    """
    new = joint.copy()

    def weights(norms: Tensor, probe: Tensor) -> Tensor:
        factors = clipping.factor(norms, max_norm) * probe.to(norms.dtype)
        return torch.where(torch.isfinite(norms), factors, 0)

    node = new.nodes[norms]
    (inserted,) = splice(new.graph, weights, [node, new.nodes[joint.probe]])
    probe = new.nodes[joint.probe].meta["val"]
    (released,) = splice(new.graph, lambda norms: norms.to(probe.dtype, copy=True), [node])
    new.set_outputs({joint.probe_gradient: released})
    return new, inserted.name
