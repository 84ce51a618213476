"""Sums over all pairs of positions of a sample: what a ghost norm is made of, as products of matrices in float64.

Letters: B samples, T positions, u and p [B, T, p], v and q [B, T, d].
"""

import torch
from torch import Tensor

__all__ = ["gram", "gram_dot", "gram_norm_sq", "gram_share", "row_norms", "total_size"]

# Of squares in float64 of numbers that are float64 themselves, underflow takes less than this from a sum.
LOST = 2.0**-1020
# Blocks of fewer positions than twice this are multiplied whole: smaller products run at a lower rate than they save.
SMALLEST_BLOCK = 64


def gram(x: Tensor, y: Tensor) -> Tensor:
    """x_s . y_t, [B, S, T], float64, of x [B, S, *] and y [B, T, *]."""
    rows = x.double()
    return rows @ (rows if y is x else y.double()).mT


def gram_dot(u: Tensor, p: Tensor, v: Tensor, q: Tensor) -> Tensor:
    """sum_{s,t} (u_s . p_t) (v_s . q_t), [B], float64."""
    return (gram(u, p) * gram(v, q)).sum((1, 2))


def gram_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), [B], float64.

    Both Gram matrices are symmetric: with the positions in two halves, the pairs across count twice and are multiplied
    once. That goes on within the halves, which stand side by side as samples of half the length, while that pays. A
    length that is symbolic is taken whole: a choice of speed must not become a guard on it.
    """
    length = u.shape[1]
    if not isinstance(length, int) or length < 2 * SMALLEST_BLOCK:
        return gram_dot(u, u, v, v)
    if length % 2 == 1:
        last_u, last_v = u[:, -1:], v[:, -1:]
        across = gram_dot(u[:, :-1], last_u, v[:, :-1], last_v)
        return gram_norm_sq(u[:, :-1], v[:, :-1]) + 2 * across + gram_dot(last_u, last_u, last_v, last_v)
    # [B, 2, T / 2, *]
    halves_u, halves_v = u.unflatten(1, (2, length // 2)), v.unflatten(1, (2, length // 2))
    across = gram_dot(halves_u[:, 0], halves_u[:, 1], halves_v[:, 0], halves_v[:, 1])
    # [2 B] to [B, 2]
    within: Tensor = gram_norm_sq(halves_u.flatten(0, 1), halves_v.flatten(0, 1)).unflatten(0, (-1, 2))
    return 2 * across + within.sum(1)


def row_norms(x: Tensor) -> Tensor:
    """|x_t|, [B, T], float64, or a little more where squares underflow."""
    if x.dtype == torch.float64:
        return (x.square().sum(-1) + LOST).sqrt()
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)  # without a copy of x in float64
    return norms


def total_size(u: Tensor, v: Tensor) -> Tensor:
    """sum_t |u_t| |v_t|, [B], float64: no less than the norm of sum_t u_t v_t^T, and what its rounding goes by."""
    return (row_norms(u) * row_norms(v)).sum(1)


def gram_share(length: int) -> float:
    """Which share of all pairs of positions `gram_norm_sq` multiplies, of a length that is not symbolic."""
    return 1.0 if length < 2 * SMALLEST_BLOCK else 1 / 4 + gram_share(length // 2) / 2
