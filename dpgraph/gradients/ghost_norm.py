"""The ghost norm, by the kernel of a GPU where a sample is long, by products of matrices elsewhere.

Letters: B samples, T positions, u [B, T, p], v [B, T, d].

The operator `dpgraph::ghost_norm_sq` is one node of a graph. Behind it are a GPU's kernel, and for every other device
the products by blocks, which compilers gain nothing by seeing: they only have more to compile.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from dpgraph.gradients.forms import accumulation_dtype
from dpgraph.gradients.gram import gram_dot, gram_norm_sq
from dpgraph.torch_compat import size_hint

__all__ = [
    "HAS_KERNEL",
    "KERNEL_FROM",
    "KERNEL_SHARE",
    "blocked_norm_sq",
    "ghost_norm_sq",
    "kernel_serves",
]

# Positions from which on the kernel is taken. Of fewer, both Gram matrices of a sample are at most 8 MB in float32.
KERNEL_FROM = 1024
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Which share of all pairs of positions the kernel multiplies.
KERNEL_SHARE = 1 / 2
# Positions that the reference multiplies with as many others at once.
REFERENCE_BLOCK = 1024

HAS_KERNEL = torch.backends.cuda.is_built() and find_spec("triton") is not None
if HAS_KERNEL:
    from dpgraph.kernels.ghost_norm import tiled_norm_sq


def ghost_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), [B], float32 or better."""
    length = u.shape[1]
    if isinstance(length, int) and length == 1:
        return _norm_sq(u) * _norm_sq(v)
    if u.device.type != "cpu" and not kernel_serves(size_hint(length), u, v):
        return gram_norm_sq(u, v)
    found: Tensor = torch.ops.dpgraph.ghost_norm_sq(u, v)
    return found


def _norm_sq(x: Tensor) -> Tensor:
    """|x_b|^2, [B], of x [B, 1, *]."""
    x = x.squeeze(1).to(accumulation_dtype(x.dtype))
    return (x * x).sum(1)


def kernel_serves(length: int, *operands: Tensor) -> bool:
    """Whether the norm of samples of so many positions is left to the kernel, which writes nothing of size [T, T]."""
    served = all(x.device.type == "cuda" and x.dtype in KERNEL_DTYPES for x in operands)
    return HAS_KERNEL and served and length >= KERNEL_FROM


def blocked_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """The same; it holds no more than the products of two blocks of positions at once, whatever T is."""
    dtype = accumulation_dtype(u.dtype)
    u, v = u.to(dtype), v.to(dtype)
    total = u.new_zeros(u.shape[0])
    blocks = list(zip(u.split(REFERENCE_BLOCK, 1), v.split(REFERENCE_BLOCK, 1), strict=True))
    for i, (u_i, v_i) in enumerate(blocks):
        total = total + gram_norm_sq(u_i, v_i)
        for u_j, v_j in blocks[:i]:
            total = total + 2 * gram_dot(u_i, u_j, v_i, v_j)
    return total


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
if HAS_KERNEL:
    _OPERATOR.register_kernel("cuda", _on_gpu)
