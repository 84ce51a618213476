"""The ghost norm's kernel for CPUs, `kernels/ghost_norm.cpp`, which is compiled when it is first asked for."""

import ctypes
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from dpgraph.torch_compat import compile_native

__all__ = ["native_norm_sq", "native_serves"]

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def native_serves(*operands: Tensor) -> bool:
    """Whether there is a kernel for such operands, which must all have one dtype."""
    dtypes = {x.dtype for x in operands}
    return len(dtypes) == 1 and dtypes <= set(DTYPES) and _library() is not None


def native_norm_sq(u: Tensor, v: Tensor) -> Tensor:
    """sum_{s,t} (u_s . u_t) (v_s . v_t), a bound on its error, and sum_t |u_t| |v_t| or a little more, [3, B], float64.

    Operands have any strides. It holds a few numbers for each position, and copies of operands whose features do not
    lie next to each other.
    """
    assert u.shape[:2] == v.shape[:2], "the kernel would read beyond the end"
    u, v = _with_features_together(u), _with_features_together(v)
    found = u.new_empty(3, u.shape[0], dtype=torch.float64)
    sizes = (*u.shape, v.shape[2], *u.stride()[:2], *v.stride()[:2])
    run = getattr(_library(), f"ghost_norm_sq_{str(u.dtype).removeprefix('torch.')}")
    run(_address(u), _address(v), _address(found), (ctypes.c_int64 * len(sizes))(*sizes), torch.get_num_threads())
    return found


def _with_features_together(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _address(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


@cache
def _library() -> ctypes.CDLL | None:
    return compile_native(files("dpgraph.kernels").joinpath("ghost_norm.cpp").read_text(encoding="utf-8"))
