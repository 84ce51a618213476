"""What the laws of forms and of rules are drawn from, and how closely they hold."""

import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["BATCHES", "EXACT", "SIZES", "randn"]

# Few sizes, so that they collide: B == T == p == d is drawn often, and so is 1.
SIZES = st.sampled_from([1, 2, 3])
BATCHES = st.sampled_from([0, 1, 2, 3])
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def randn(*shape: int) -> Tensor:
    """In float64."""
    return torch.randn(*shape, dtype=torch.float64)
