"""Transfer rules of operators that dpgraph does not know, from their authors."""

from typing import Literal, get_args

from dpgraph.errors import ArgumentError
from dpgraph.provenance.lattice import PerSample
from dpgraph.provenance.registry import REGISTERED, Results, Step, Transfer, find_transfer, transfer
from dpgraph.provenance.rules.pointwise import pointwise
from dpgraph.torch_compat import OpOverload

__all__ = ["register_transfer"]

Family = Literal["pointwise", "leading"]


def register_transfer(operator: OpOverload, rule: Family | Transfer) -> None:
    """Tell the analysis how an operator treats samples, for operators that it refuses as unknown.

    Wherever the operator occurs, the rule is tried on random values: one sample is changed, and if values move that the
    rule ascribes to others, the program is refused. That catches mistakes; it is no proof, and `DPModule.certificate`
    names every registered operator that a model uses.

    Args:
        operator: an overload, such as `torch.ops.mylib.fused_gelu.default`. One that is differentiated needs a rule
            for the operator of its backward too.
        rule: "pointwise": elements that meet after broadcasting, aligned at the last axis, make an element.
            "leading": axis 0 of all operands that samples own and of all results is the batch, and its indices
            are treated apart. Or a function `rule(step) -> Provenance` (a tuple of them for several results); see
            `dpgraph.provenance.registry.Step` and the rules under `dpgraph.provenance.rules`.

    Raises:
        ArgumentError: it is no operator, it has a rule already, or the family is unknown.

    >>> import torch
    >>> register_transfer(torch.ops.aten.add.Tensor, "pointwise")
    Traceback (most recent call last):
    dpgraph.errors.ArgumentError: aten.add.Tensor has a transfer rule already...
    """
    if not isinstance(operator, OpOverload):
        raise ArgumentError(
            f"{operator!r} is no overload of an operator",
            why="the graph holds overloads, and a rule for another name would never be found",
            fix="pass torch.ops.NAMESPACE.NAME.default, as the refusal names it",
        )
    if find_transfer(operator) is not None:
        raise ArgumentError(
            f"{operator} has a transfer rule already",
            why="a second rule would replace what the soundness check rests on",
            fix="if that rule refuses a sound program, report it",
        )
    if isinstance(rule, str) and rule not in FAMILIES:
        raise ArgumentError(
            f"the family of transfer rules is {rule!r}",
            why="it decides which sample each value is ascribed to",
            fix=f"choose one of {', '.join(map(repr, get_args(Family)))}, or give a function",
        )
    REGISTERED.add(operator)
    transfer(operator)(FAMILIES[rule] if isinstance(rule, str) else rule)


def _leading(step: Step) -> Results:
    """Axis 0 of every operand and result runs over the samples."""
    found = step.agreed(step.tensors)
    if isinstance(found, PerSample) and found.axis != 0:
        found = step.unshown("was registered for samples on axis 0")
    return found


FAMILIES: dict[str, Transfer] = {"pointwise": pointwise, "leading": _leading}
