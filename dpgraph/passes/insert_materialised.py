"""Pass: compute the per-sample gradients themselves, where the plan holds them in place of what they are made of."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from dpgraph.capture.joint import JointGraph
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form, with_tensors
from dpgraph.graphs.splice import splice
from dpgraph.sites.gradient import PerSampleGradient

__all__ = ["insert_materialised"]


def insert_materialised(
    joint: JointGraph, gradients: Mapping[str, PerSampleGradient], chosen: Mapping[str, Sequence[bool]]
) -> tuple[JointGraph, Mapping[str, PerSampleGradient]]:
    """Replace each chosen form by `Dense`.

    Args:
        joint: the graph that computes what the forms are made of.
        gradients: each parameter's per-sample gradient in it.
        chosen: for each parameter, which of its forms.

    Returns:
        The new graph, and the gradients in it.
    """
    new = joint.copy()
    changed = {}
    for parameter, gradient in gradients.items():
        forms: list[Form] = []
        operands: list[str] = []
        for (form, names), held in zip(gradient.parts(), chosen[parameter], strict=True):
            if held:

                def made(*values: Tensor, form: Form = form) -> Tensor:
                    return with_tensors((form,), values)[0].materialise()

                (node,) = splice(new.graph, made, [new.nodes[name] for name in names])
                form, names = Dense(node.meta["val"]), (node.name,)
            forms.append(form)
            operands += names
        changed[parameter] = PerSampleGradient(tuple(forms), tuple(operands))
    return new, changed
