"""The way of gradients in float32 around autograd, to parameters in half precision.

Autograd rounds a gradient to the dtype of what it is the gradient of, wherever it passes from one node to the next.
That would undo the sum in float32: rounding to half precision moves a sum of many samples by more than one of them may.
So such gradients are taken off the outputs of the compiled backward, and are found again by the gradient of the probe,
which leaves with them and is in float32 itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["around_autograd", "found_unrounded"]

AROUND: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

Compiled = Callable[..., Any]


def around_autograd(outputs: Sequence[Any], dtypes: Mapping[int, torch.dtype], probe: int) -> list[Any]:
    """What a compiled backward hands to autograd of what it returns: None for gradients that are more exact.

    Args:
        outputs: gradients by the position of the input.
        dtypes: of inputs that are in half precision.
        probe: position of the probe.
    """
    apart = {i: outputs[i] for i, dtype in dtypes.items() if outputs[i] is not None and outputs[i].dtype != dtype}
    if apart:
        AROUND[outputs[probe]] = apart
    return [None if i in apart else x for i, x in enumerate(outputs)]


def found_unrounded(of_probe: Tensor | None) -> Mapping[int, Tensor]:
    """The gradients that left a backward with this gradient of the probe, by the position of the input."""
    found: Mapping[int, Tensor] = {} if of_probe is None else AROUND.pop(of_probe, {})
    return found
