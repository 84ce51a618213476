"""The ghost norm: one operator where a kernel serves or a sample is long, else products of matrices in the graph.

Letters: B samples, T positions, u [B, T, p], v [B, T, d].

The operator `dpgraph::ghost_norm_sq` is a kernel, in C++ on a CPU and in Triton on a GPU. Where there is none, it is
products of blocks of positions. In neither is there anything of size [T, T].
"""

import math
from importlib.util import find_spec

import torch
from torch import Tensor

from dpgraph.gradients.forms import accumulation_dtype
from dpgraph.gradients.gram import gram_dot, gram_norm_sq
from dpgraph.gradients.native import native_norm_sq, native_serves

__all__ = [
    "HAS_KERNEL",
    "KERNEL_SHARE",
    "LONG_FROM",
    "blocked_norm_sq",
    "ghost_norm_sq",
    "kernel_serves",
]

# Positions from which on a sample is long. Of fewer, both Gram matrices of a sample are at most 8 MB in float32.
LONG_FROM = 1024
# What Triton's kernel takes.
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Which share of all pairs of positions a kernel multiplies.
KERNEL_SHARE = 1 / 2
# Positions that are multiplied with as many others at once where there is no kernel.
BLOCK = 1024

HAS_KERNEL = torch.backends.cuda.is_built() and find_spec("triton") is not None
if HAS_KERNEL:
    from dpgraph.kernels.ghost_norm import tiled_norm_sq


def ghost_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), [B], float32 or better.

    A length that is symbolic may turn out to be long: it is left to the operator, so that it need not be guarded.
    """
    length = u.shape[1]
    if isinstance(length, int) and length == 1:
        return _norm_sq(u) * _norm_sq(v)
    if not isinstance(length, int) or length >= LONG_FROM or kernel_serves(length, u, v):
        found: Tensor = torch.ops.dpgraph.ghost_norm_sq(u, v)
        return found
    return gram_norm_sq(u, v)


def _norm_sq(x: Tensor) -> Tensor:
    """|x_b|^2, [B], of x [B, 1, *]."""
    x = x.squeeze(1).to(accumulation_dtype(x.dtype))
    return (x * x).sum(1)


def kernel_serves(length: int, *operands: Tensor) -> bool:
    """Whether the norm of samples of so many positions is left to a kernel, which writes nothing of size [T, T].

    On a GPU that is not shown to be faster for short samples, where products leave the compiler more to fuse.
    """
    if all(x.device.type == "cpu" for x in operands):
        return length > 1 and native_serves(*operands)
    on_gpu = all(x.device.type == "cuda" and x.dtype in KERNEL_DTYPES for x in operands)
    return HAS_KERNEL and on_gpu and length >= LONG_FROM


def blocked_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """The same; beside its operands it holds the products of two blocks of positions, whatever B and T are."""
    dtype = accumulation_dtype(u.dtype)
    at_once = math.ceil(BLOCK**2 / (1 + u.shape[1] ** 2))
    parts = zip(u.split(at_once), v.split(at_once), strict=True)
    return torch.cat([_blocked_norm_sq(u_part.to(dtype), v_part.to(dtype)) for u_part, v_part in parts])


def _blocked_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    total = u.new_zeros(u.shape[0])
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
    return tiled_norm_sq(u, v) if served else blocked_norm_sq(u, v)


def _fake_norm_sq(u: Tensor, _: Tensor) -> Tensor:
    return u.new_empty(u.shape[0], dtype=accumulation_dtype(u.dtype))


_OPERATOR = torch.library.custom_op(
    "dpgraph::ghost_norm_sq",
    blocked_norm_sq,
    mutates_args=(),
    schema="(Tensor u, Tensor v) -> Tensor",
    tags=(torch.Tag.flexible_layout,),
)
_OPERATOR.register_fake(_fake_norm_sq)
_OPERATOR.register_kernel("cpu", _on_cpu)
if HAS_KERNEL:
    _OPERATOR.register_kernel("cuda", _on_gpu)
