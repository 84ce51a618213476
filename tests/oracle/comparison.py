"""How far gradients are from the reference."""

from collections.abc import Mapping

import torch
from torch import Tensor

# Below this share of the whole gradient a parameter's gradient is rounding noise in float64.
ZERO_IN_EXACT_ARITHMETIC = 1e-9
# An error below this share of the whole gradient is rounding: a gradient that is a small difference of large numbers
# (the scale before a norm) can be no closer. Clipping a group of its own size up makes the rounding larger as well.
ROUNDING = 16 * torch.finfo(torch.float64).eps


def relative_errors(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    noise: float = ZERO_IN_EXACT_ARITHMETIC,
    whole_of: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """|found - expected| / |expected| of each parameter, less what is rounding.

    Some gradients are zero in exact arithmetic: adding a constant to all keys changes no softmax, so the bias of a key
    projection has none. What the loop gives there is rounding noise, which nothing can agree with; such a parameter is
    measured against the gradient of all parameters together.

    Args:
        found: gradients by parameter.
        expected: those of the reference.
        noise: below this share of the whole gradient a parameter's is rounding noise.
        whole_of: norm of the whole gradient that each parameter's is a part of, if clipping changed their proportions.
    """
    whole = torch.sqrt(sum((e.square().sum() for e in expected.values()), torch.zeros((), dtype=torch.float64))).item()
    errors = {}
    for name, e in expected.items():
        norm = e.norm().item()
        scale = norm if norm > noise * whole else whole
        rounding = ROUNDING * (whole if whole_of is None else whole_of[name])
        difference = (found[name].detach().double() - e).norm().item() - rounding
        errors[name] = 0.0 if difference <= 0 else difference / scale if scale > 0 else difference
    return errors
