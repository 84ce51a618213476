"""C++ of our own, compiled as Inductor compiles what it writes: same compiler, same flags, same cache on disk."""

import ctypes
import logging

from torch._inductor.codecache import CppCodeCache
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

__all__ = ["compile_native"]

log = logging.getLogger(__name__)

# Inductor wants the same bits as op by op, and forbids to multiply and add at once.
FLAGS = ("-ffp-contract=fast", "-fno-unsafe-math-optimizations", "-fno-finite-math-only")


def compile_native(source: str) -> ctypes.CDLL | None:
    """The library of a C++ source for this machine's processor; None, and a warning, where it can't be compiled."""
    try:
        library: ctypes.CDLL = CppCodeCache.load(source, extra_flags=FLAGS)
    except (CppCompileError, InvalidCxxCompiler, OSError) as error:
        log.warning("dpgraph's kernel for CPUs does not compile, so steps take longer: %s", error)
        return None
    return library
