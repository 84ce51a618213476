"""dpgraph: differentially private training as a compiler pass over PyTorch's joint forward/backward graph."""

from dpgraph.api import dp_compile
from dpgraph.clipping import ClippingFunction
from dpgraph.errors import (
    ArgumentError,
    CaptureError,
    DPGraphError,
    UnsoundProgramError,
    UnsupportedProgramError,
)
from dpgraph.lower.module import DPModule
from dpgraph.options import CompileOptions

__all__ = [
    "ArgumentError",
    "CaptureError",
    "ClippingFunction",
    "CompileOptions",
    "DPGraphError",
    "DPModule",
    "UnsoundProgramError",
    "UnsupportedProgramError",
    "dp_compile",
]
