"""The ghost norm of long samples on a GPU: both Gram matrices tile by tile, multiplied and summed on the chip.

Letters: B samples, T positions, s and t two of them, u [B, T, p], v [B, T, d]. U and V are the products u_s . u_t and
v_s . v_t as they are computed, a_t and b_t bounds of |u_t| and |v_t|.

A tile of u u^T and the same tile of v v^T are built up in registers, in float32, multiplied and summed in float64;
neither is written. Both are symmetric, so of tiles (i, j) and (j, i) one is computed and counts twice: of n tiles, i
meets those that come 0 to n/2 after it, around the end. If n is even, both pairs at distance n/2 come up, and each
counts once.

Programs take turns with the pairs of tiles of their sample and write two numbers each, at most `MOST_PROGRAMS` a sample
whatever T is. Those are summed afterwards rather than added up atomically, so that the same input gives the same bits.
No program reads two samples.

Rounding. Features are taken in groups, each added up from zero, and the sums of groups are added to the tile. So a
product passes through n roundings, those of its group and one for each group, and a product x_s . x_t is off by at most
g |x_s| |x_t|, with g = n e / (1 - n e) and e = 2^-24 (Higham 2002, section 3.1, and Cauchy and Schwarz).

A group of k features has k roundings where float32 is multiplied, whether a product and its addition are fused or not:
the first addition is to zero. A tensor core aligns m >= 4 products and what they are added to with the largest of them,
and cuts off all of these and their sum, each at 24 bits or later: these are 2 (m + 1) roundings for m features, and
5/2 k for k (Fasi, Higham, Mikaitis and Pranesh 2021; Khattak and Mikaitis 2025). Where it takes float32 as tf32, it
cuts 13 bits off both operands too: g is 2^-9 larger.

With g for u and h for v, the term U V of a pair of positions is off by at most
    h |U| b_s b_t + g a_s a_t (|V| + h b_s b_t).
What products lose by underflow is in a and b, see `enlarged`. What this expression loses, and the rounding of the sum
of the terms, in whatever order, are added in `launch`.
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
# Features of a group, several blocks of them.
DEPTH = tl.constexpr(64)
# Of a rounding, and roundings of a feature where float32 is multiplied and in a tensor core.
UNIT = tl.constexpr(2.0**-24)
ONE_BY_ONE = tl.constexpr(1.0)
IN_TENSOR_CORE = tl.constexpr(2.5)
# Of a product of two operands that are cut to tf32.
CUT = tl.constexpr(2.0**-9)
# In float32, a sum of 2^14 bounds, those of a tile, is too small by at most 2^-10 of it. There is as much to spare.
SLACK = tl.constexpr(1 + 2.0**-9)

CONFIGS = [
    triton.Config({"BLOCK_T": block_t, "BLOCK_K": 32}, num_warps=num_warps, num_stages=num_stages)
    for block_t, num_warps, num_stages in [
        (SMALLEST_TILE, 4, 3),
        (SMALLEST_TILE, 4, 5),
        (2 * SMALLEST_TILE, 8, 3),
        (2 * SMALLEST_TILE, 8, 4),
    ]
]


def tiled_norm_sq(u: Tensor, v: Tensor, size_u: Tensor, size_v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t) and a bound on its error, [2, B] in float64.

    The size of the tiles is found by trial at the first call with sizes of a kind, for which Triton takes 256 MB for a
    moment.

    Args:
        u: [B, T, p] in float32, float16 or bfloat16, in any strides.
        v: [B, T, d], the same.
        size_u: |u_t|, [B, T] in float64, or more. It may be less by a share of 2^-22, and so rounded in any way.
        size_v: |v_t|, the same.
    """
    return launch(_tuned, u, v, size_u, size_v)


def launch(kernel: Any, u: Tensor, v: Tensor, size_u: Tensor, size_v: Tensor, **tiles: int) -> Tensor:
    """The same with a given kernel, whose tiles may be as small as one likes."""
    assert u.shape[:2] == v.shape[:2] == size_u.shape == size_v.shape, "the kernel would read beyond the end"
    num_samples, length, rows = u.shape
    columns = v.shape[2]
    a, b = enlarged(size_u, rows), enlarged(size_v, columns)
    num_tiles = triton.cdiv(length, SMALLEST_TILE)
    num_programs = min(MOST_PROGRAMS, triton.next_power_of_2(num_tiles * (num_tiles // 2 + 1)))
    sums = torch.empty(2, num_samples, num_programs, dtype=torch.float64, device=u.device)
    if sums.numel():
        precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
        sizes = (length, rows, columns, num_programs)
        grid = (num_samples * num_programs,)
        with torch.cuda.device_of(u):
            kernel[grid](u, v, a, b, sums, *u.stride(), *v.stride(), *sizes, PRECISION=precision, **tiles)
    value, error = sums.sum(2)
    # of T^2 terms |U V| <= 2 a_s a_t b_s b_t in float64, each in fewer than T^2 additions
    added = (2.0**-26 * length * (a.double() * b).sum(1)).square()
    # of two products in float32, 2^-126 each at the most, for each pair of positions that are not zero
    underflow = 2.0**-124 * (a * b != 0).sum(1).double().square()
    return torch.stack([value, error + added + underflow])


def enlarged(size: Tensor, num_features: int) -> Tensor:
    """The numbers a of an operand x from the sizes of its rows: g a_s a_t is a bound whatever underflows, [B, T].

    Each of a product's rounding, its additions and its operands loses at most 2^-126, beside a share, and so a sum of p
    of them no more than 2^-124 p + 2^-126 p^(1/2) (|x_s| + |x_t|). With g >= 2^-18 that is less than what comes to
    g |x_s| |x_t| by enlarging squares by 2^-20 of them, of which one half is left for how they were rounded, and by
    2^-100 p. Of zeros, it is zero.
    """
    a = size.square().mul_(1 + 2.0**-20).add_(2.0**-100 * num_features).sqrt_()
    # float32, rounded upwards
    return a.mul_(1 + 2.0**-22).float().masked_fill_(size == 0, 0).contiguous()


@triton.jit
def add_up_pairs(
    u: tl.tensor,
    v: tl.tensor,
    a: tl.tensor,
    b: tl.tensor,
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
    """Write to sums [2, B, num_programs] what each program's pairs of tiles come to, and how far that may be off.

    u, v, a [B, T] and b [B, T], of which the latter two are contiguous; then follow strides and sizes.
    """
    program = tl.program_id(0)
    sample = (program // num_programs).to(tl.int64)
    u += sample * u_sample
    v += sample * v_sample
    a += sample * length
    b += sample * length
    g = relative_error(rows, u.dtype.element_ty, PRECISION)
    h = relative_error(columns, v.dtype.element_ty, PRECISION)
    num_tiles = tl.cdiv(length, BLOCK_T)
    num_distances = num_tiles // 2 + 1
    value = tl.full((), 0, tl.float64)
    error = tl.full((), 0, tl.float64)
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
        around_u = g * sizes_tile(a, i, j, length, BLOCK_T)
        around_v = h * sizes_tile(b, i, j, length, BLOCK_T)
        off = tl.abs(of_u) * around_v + around_u * (tl.abs(of_v) + around_v)
        value += count * tl.sum(of_u.to(tl.float64) * of_v.to(tl.float64))
        error += count * tl.sum(off).to(tl.float64)
    tl.store(sums + program, value)
    tl.store(sums + tl.num_programs(0) + program, error * SLACK)


@triton.jit
def relative_error(size: tl.tensor, dtype: tl.constexpr, PRECISION: tl.constexpr) -> tl.tensor:
    """|x_s . x_t - computed| <= g |x_s| |x_t| for rows of so many features; infinite where that were 1/3 or more."""
    is_float32: tl.constexpr = dtype == tl.float32
    per_feature: tl.constexpr = ONE_BY_ONE if is_float32 and PRECISION == "ieee" else IN_TENSOR_CORE
    ne = (per_feature * DEPTH + tl.cdiv(size, DEPTH)) * UNIT
    g = tl.where(ne < 0.25, ne / (1 - ne), float("inf"))
    return g + CUT if is_float32 and PRECISION == "tf32" else g


@triton.jit
def sizes_tile(sizes: tl.tensor, i: tl.tensor, j: tl.tensor, length: tl.tensor, BLOCK_T: tl.constexpr) -> tl.tensor:
    """a_s a_t for the positions s of tile i and t of tile j, zero past the last; sizes [T] contiguous."""
    s = i * BLOCK_T + tl.arange(0, BLOCK_T)
    t = j * BLOCK_T + tl.arange(0, BLOCK_T)
    of_s = tl.load(sizes + s, mask=s < length, other=0.0)
    of_t = tl.load(sizes + t, mask=t < length, other=0.0)
    return of_s[:, None] * of_t[None, :]


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
    # A sum of a tile and a single product, Triton makes a product that starts at the tile: features would be one chain.
    tl.static_assert(DEPTH % BLOCK_K == 0 and DEPTH > BLOCK_K)
    s = (i * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)[:, None]
    t = (j * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)[None, :]
    tile = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    of_group = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for start in range(0, size, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        left = x + s * position + k[None, :] * feature
        right = x + t * position + k[:, None] * feature
        x_s = tl.load(left, mask=(s < length) & (k[None, :] < size), other=0.0)
        x_t = tl.load(right, mask=(t < length) & (k[:, None] < size), other=0.0)
        of_group = tl.dot(x_s, x_t, of_group, input_precision=PRECISION)
        if (DEPTH - BLOCK_K - start) % DEPTH == 0:
            tile += of_group
            of_group = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    return tile + of_group


# A power of two is all that the number of programs takes of T.
_tuned = triton.autotune(CONFIGS, key=["rows", "columns", "num_programs", "PRECISION"])(add_up_pairs)
