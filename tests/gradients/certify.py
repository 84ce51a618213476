"""What a certified number must be: near the true one, and no further from it than it says."""

import torch
from torch import Tensor

from dpgraph.gradients.certified import Certified, added_up

# What the reference itself, computed in float64, may be off by, as a share of the largest number.
REFERENCE = 1e-13


def assert_certified(found: Certified | Tensor, true: Tensor, *, rtol: float = 1e-6) -> None:
    """`found` is `true` up to rounding and says so: as a number with its bound, or both as rows."""
    certified = Certified(*found[:2].unbind(0)) if isinstance(found, Tensor) else found
    true = true.double()
    value, error = (certified.value, certified.error) if certified.error is not None else added_up([certified])
    assert value.dtype == error.dtype == torch.float64
    assert value.shape == error.shape == true.shape
    scale = max(value.abs().max().item(), 1.0) if value.numel() else 1.0
    torch.testing.assert_close(value, true, rtol=rtol, atol=rtol * scale)
    assert ((value - true).abs() <= error + REFERENCE * scale).all()
