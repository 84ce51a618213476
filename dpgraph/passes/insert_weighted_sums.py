"""Pass: replace every trained parameter's gradient by the weighted sum of its per-sample gradients."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dpgraph.capture.joint import JointGraph, Parameter
from dpgraph.gradients.forms import weighted_sum
from dpgraph.graphs.splice import splice
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["insert_weighted_sums"]


def insert_weighted_sums(
    joint: JointGraph,
    gradients: Mapping[str, PerSampleGradient],
    group_of: Mapping[str, int],
    weights: Sequence[str],
    unit: float,
) -> JointGraph:
    """Put sum_b w_b G_b, with the weights [B] of the parameter's group, in the place of sum_b G_b.

    The sums are in float32 or better, whatever the parameter is in: rounding a sum to half precision would move it by
    more than a sample may. They are multiplied by the unit that the weights were divided by, a power of two.
    """
    new = joint.copy()
    placeholders = {role.name: name for name, role in joint.inputs.items() if isinstance(role, Parameter)}
    changes = {}
    for parameter, gradient in gradients.items():
        trained = joint.nodes[placeholders[parameter]].meta["val"]

        def clipped(
            w: Tensor,
            *values: Tensor,
            gradient: PerSampleGradient = gradient,
            like: Tensor = trained,
        ) -> Tensor:
            total = weighted_sum(gradient(values), w).to(torch.promote_types(like.dtype, torch.float32))
            total = total if unit == 1 else total * unit
            return total if total.shape == like.shape else total.reshape(like.shape)

        operands = [new.nodes[name] for name in (weights[group_of[parameter]], *gradient.operands)]
        (changes[joint.gradients[parameter]],) = splice(new.graph, clipped, operands)
    new.set_outputs(changes)
    return new
