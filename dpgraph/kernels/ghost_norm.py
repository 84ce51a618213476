"""The ghost norm of long samples on a GPU: both Gram matrices tile by tile, multiplied and summed on the chip.

Letters: B samples, T positions, u [B, T, p], v [B, T, d].

A tile of u u^T and the same tile of v v^T are built up in registers, in float32, multiplied and summed; neither is
written. Both are symmetric, so of tiles (i, j) and (j, i) one is computed and counts twice: of n tiles, i meets those
that come 0 to n/2 after it, around the end. If n is even, both pairs at distance n/2 come up, and each counts once.

Programs take turns with the pairs of tiles of their sample and write one number each, at most `MOST_PROGRAMS` a sample
whatever T is. Those are summed afterwards rather than added up atomically, so that the same input gives the same bits.
No program reads two samples.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["CONFIGS", "add_up_pairs", "launch", "tiled_norm_sq"]

MOST_PROGRAMS = 1024
SMALLEST_TILE = 64
# Neighbouring programs take so many tiles i before the distance grows: what they read is read again soon, from cache.
GROUP = tl.constexpr(8)

CONFIGS = [
    triton.Config({"BLOCK_T": block_t, "BLOCK_K": block_k}, num_warps=num_warps, num_stages=num_stages)
    for block_t, block_k, num_warps, num_stages in [
        (SMALLEST_TILE, 32, 4, 3),
        (SMALLEST_TILE, 64, 4, 3),
        (2 * SMALLEST_TILE, 32, 8, 3),
        (2 * SMALLEST_TILE, 64, 8, 3),
    ]
]


def tiled_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), [B] in float32, of u and v in float32, float16 or bfloat16 in any strides.

    The size of the tiles is found by trial at the first call with sizes of a kind, for which Triton takes 256 MB for a
    moment.
    """
    return launch(_tuned, u, v)


def launch(kernel: Any, u: Tensor, v: Tensor, **tiles: int) -> Tensor:
    """The same with a given kernel, whose tiles may be as small as one likes."""
    assert u.shape[:2] == v.shape[:2], "the kernel would read beyond the end"
    num_samples, length, rows = u.shape
    num_tiles = triton.cdiv(length, SMALLEST_TILE)
    num_programs = min(MOST_PROGRAMS, triton.next_power_of_2(num_tiles * (num_tiles // 2 + 1)))
    sums = torch.empty(num_samples, num_programs, dtype=torch.float32, device=u.device)
    if sums.numel():
        precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
        sizes = (length, rows, v.shape[2], num_programs)
        with torch.cuda.device_of(u):
            kernel[(sums.numel(),)](u, v, sums, *u.stride(), *v.stride(), *sizes, PRECISION=precision, **tiles)
    return sums.sum(1)


@triton.jit
def add_up_pairs(
    u: tl.tensor,
    v: tl.tensor,
    sums: tl.tensor,
    u_sample: tl.tensor,
    u_position: tl.tensor,
    u_feature: tl.tensor,
    v_sample: tl.tensor,
    v_position: tl.tensor,
    v_feature: tl.tensor,
    length: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    num_programs: tl.tensor,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Write to sums [B, num_programs] what each program's pairs of tiles come to; then follow strides and sizes."""
    program = tl.program_id(0)
    sample = (program // num_programs).to(tl.int64)
    u += sample * u_sample
    v += sample * v_sample
    num_tiles = tl.cdiv(length, BLOCK_T)
    num_distances = num_tiles // 2 + 1
    total = 0.0
    for pair in range(program % num_programs, num_tiles * num_distances, num_programs):
        band = GROUP * num_distances
        start = pair // band * GROUP
        group = min(GROUP, num_tiles - start)
        i = start + pair % band % group
        distance = pair % band // group
        j = (i + distance) % num_tiles
        count = tl.where((distance == 0) | (2 * distance == num_tiles), 1.0, 2.0)
        of_u = gram_tile(u, u_position, u_feature, i, j, length, rows, PRECISION, BLOCK_T, BLOCK_K)
        of_v = gram_tile(v, v_position, v_feature, i, j, length, columns, PRECISION, BLOCK_T, BLOCK_K)
        total += count * tl.sum(of_u * of_v)
    tl.store(sums + program, total)


@triton.jit
def gram_tile(
    x: tl.tensor,
    position: tl.tensor,
    feature: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    length: tl.tensor,
    size: tl.tensor,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> tl.tensor:
    """x_s . x_t for the positions s of tile i and t of tile j, zero past the last; x [T, size] in those strides."""
    s = (i * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)[:, None]
    t = (j * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)[None, :]
    tile = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for start in range(0, size, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        left = x + s * position + k[None, :] * feature
        right = x + t * position + k[:, None] * feature
        x_s = tl.load(left, mask=(s < length) & (k[None, :] < size), other=0.0)
        x_t = tl.load(right, mask=(t < length) & (k[:, None] < size), other=0.0)
        tile = tl.dot(x_s, x_t, tile, input_precision=PRECISION)
    return tile


# A power of two is all that the number of programs takes of T.
_tuned = triton.autotune(CONFIGS, key=["rows", "columns", "num_programs", "PRECISION"])(add_up_pairs)
