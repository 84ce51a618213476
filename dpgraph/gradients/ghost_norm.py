"""The ghost norm: one operator where a kernel serves or a sample is long, else products of matrices in the graph.

Letters: B samples, T positions, u [B, T, p], v [B, T, d].

The operator `dpgraph::ghost_norm` is a kernel, in C++ on a CPU and in Triton on a GPU. Where there is none, it is
products of blocks of positions. In neither is there anything of size [T, T]. A kernel adds up in float32 and bounds its
own error; products in the graph are of float64, since nobody knows the order in which a library adds.
"""

import math
from importlib.util import find_spec

import torch
from torch import Tensor

from dpgraph.gradients.certified import FLOOR, Certified, rounding
from dpgraph.gradients.gram import gram_dot, gram_norm_sq, row_norms, total_size
from dpgraph.gradients.native import native_norm_sq, native_serves

__all__ = [
    "HAS_KERNEL",
    "KERNEL_FROM",
    "KERNEL_SHARE",
    "LONG_FROM",
    "blocked_norm_sq",
    "ghost_norm_sq",
    "kernel_serves",
]

# Positions from which on a sample is long. Of fewer, both Gram matrices of a sample are at most 16 MB in float64.
LONG_FROM = 1024
# What Triton's kernel takes, and from how many positions on: those of one tile.
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KERNEL_FROM = 64
# Which share of all pairs of positions a kernel multiplies.
KERNEL_SHARE = 1 / 2
# Positions that are multiplied with as many others at once where there is no kernel.
BLOCK = 1024

HAS_KERNEL = torch.backends.cuda.is_built() and find_spec("triton") is not None
if HAS_KERNEL:
    from dpgraph.kernels.ghost_norm import tiled_norm_sq


def ghost_norm_sq(u: Tensor, v: Tensor) -> tuple[Certified, Tensor]:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), and sum_t |u_t| |v_t| or a little more, [B] in float64.

    A length that is symbolic may turn out to be long: it is left to the operator, so that it need not be guarded.
    """
    length = u.shape[1]
    if isinstance(length, int) and length == 1:
        of_u, of_v = _norm_sq(u), _norm_sq(v)
        lost = FLOOR * (of_u + of_v) if torch.float64 in (u.dtype, v.dtype) else None
        return Certified(of_u * of_v, lost, rounding(u.shape[2] + v.shape[2])), total_size(u, v)
    if not isinstance(length, int) or length >= LONG_FROM or kernel_serves(length, u, v):
        value, error, size = torch.ops.dpgraph.ghost_norm(u, v).unbind(0)
        return Certified(value, error), size
    return _from_products(gram_norm_sq(u, v), u, v)


def _norm_sq(x: Tensor) -> Tensor:
    """|x_b|^2, [B], of x [B, 1, *]."""
    return x.squeeze(1).double().square().sum(1)


def _from_products(value: Tensor, u: Tensor, v: Tensor) -> tuple[Certified, Tensor]:
    # A product of two features each, of p and d products, and the sum over pairs of positions.
    count = u.shape[1] ** 2 + u.shape[2] + v.shape[2]
    size = total_size(u, v)
    return Certified(value, rounding(count) * size.square()), size


def kernel_serves(length: int, *operands: Tensor) -> bool:
    """Whether the norm of samples of so many positions is left to a kernel, which writes nothing of size [T, T]."""
    if all(x.device.type == "cpu" for x in operands):
        return length > 1 and native_serves(*operands)
    on_gpu = all(x.device.type == "cuda" and x.dtype in KERNEL_DTYPES for x in operands)
    return HAS_KERNEL and on_gpu and length >= KERNEL_FROM


def blocked_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """The number, its bound and the size, [3, B] in float64.

    Beside its operands it holds the products of two blocks of positions, whatever B and T are.
    """
    at_once = math.ceil(BLOCK**2 / (1 + u.shape[1] ** 2))
    parts = zip(u.split(at_once), v.split(at_once), strict=True)
    found, size = _from_products(torch.cat([_blocked_norm_sq(of_u, of_v) for of_u, of_v in parts]), u, v)
    return torch.stack([*found.tensors(), size])


def _blocked_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    total = u.new_zeros(u.shape[0], dtype=torch.float64)
    blocks = list(zip(u.split(BLOCK, 1), v.split(BLOCK, 1), strict=True))
    for i, (u_i, v_i) in enumerate(blocks):
        total = total + gram_norm_sq(u_i, v_i)
        for u_j, v_j in blocks[:i]:
            total = total + 2 * gram_dot(u_i, u_j, v_i, v_j)
    return total


def _on_cpu(u: Tensor, v: Tensor) -> Tensor:
    return native_norm_sq(u, v) if native_serves(u, v) else blocked_norm_sq(u, v)


def _on_gpu(u: Tensor, v: Tensor) -> Tensor:
    served = u.dtype in KERNEL_DTYPES and v.dtype in KERNEL_DTYPES
    if not served:
        return blocked_norm_sq(u, v)
    of_u, of_v = row_norms(u), row_norms(v)
    return torch.cat([tiled_norm_sq(u, v, of_u, of_v), (of_u * of_v).sum(1)[None]])


def _fake_norm_sq(u: Tensor, _: Tensor) -> Tensor:
    return u.new_empty(3, u.shape[0], dtype=torch.float64)


# Inductor's cache knows an operator by its name: what it returns must not change under one.
_OPERATOR = torch.library.custom_op(
    "dpgraph::ghost_norm",
    blocked_norm_sq,
    mutates_args=(),
    schema="(Tensor u, Tensor v) -> Tensor",
    tags=(torch.Tag.flexible_layout,),
)
_OPERATOR.register_fake(_fake_norm_sq)
_OPERATOR.register_kernel("cpu", _on_cpu)
if HAS_KERNEL:
    _OPERATOR.register_kernel("cuda", _on_gpu)
