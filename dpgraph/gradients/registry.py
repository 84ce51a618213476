"""Gradient rules: an operator that summed over the samples, to the per-sample gradients it summed.

A rule takes the op's own arguments, in which every operand that holds one value a sample is a `PerSampleTensor`, and
every other one is as the op got it. It returns a form, a tuple of them for an op with several results (None for one
that is not a gradient), or None to leave the case to the fallback.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dpgraph.gradients.forms import Form, Gradient

__all__ = ["GRADIENT_RULES", "LINEAR_RULES", "PerSampleTensor", "gradient_rule", "linear_rule"]


@dataclass(frozen=True, slots=True)
class PerSampleTensor:
    """stack [B, *shape]: what the op would get as an operand [*shape] if a sample were alone in the batch."""

    stack: Tensor


Result = Form | None | tuple[Form | None, ...]
GradientRule = Callable[..., Result]
LinearRule = Callable[..., "Gradient | None"]

GRADIENT_RULES: dict[object, GradientRule] = {}
LINEAR_RULES: dict[object, LinearRule] = {}


def _register(rules: dict[object, Any], operators: tuple[object, ...]) -> Callable[[Any], Any]:
    def register(rule: Any) -> Any:
        for operator in operators:
            owner = rules.get(operator)
            assert owner is None, f"{operator} has two rules: {owner} and {rule}"
            rules[operator] = rule
        return rule

    return register


def gradient_rule(*operators: object) -> Callable[[GradientRule], GradientRule]:
    """Register the rule of an op at which the samples are summed."""
    return _register(GRADIENT_RULES, operators)


def linear_rule(*operators: object) -> Callable[[LinearRule], LinearRule]:
    """Register how a linear op after that sum carries a per-sample gradient on, without materialising it."""
    return _register(LINEAR_RULES, operators)
