"""dpgraph: differentially private training as a compiler pass over PyTorch's joint forward/backward graph."""

from dpgraph import losses
from dpgraph.api import dp_compile
from dpgraph.audit import Audit, Influence, audit_provenance
from dpgraph.clipping import AutoS, ClippingFunction
from dpgraph.errors import (
    ArgumentError,
    CaptureError,
    DPGraphError,
    MiscompiledError,
    UnsoundProgramError,
    UnsupportedProgramError,
)
from dpgraph.gradient_audit import GradientAudit, GradientError, audit_gradients
from dpgraph.lower.module import DPModule
from dpgraph.options import CompileOptions
from dpgraph.planning import plan
from dpgraph.provenance.custom import register_transfer
from dpgraph.public_sizes import PublicSizeWarning
from dpgraph.validate.record import Validation

__all__ = [
    "ArgumentError",
    "Audit",
    "AutoS",
    "CaptureError",
    "ClippingFunction",
    "CompileOptions",
    "DPGraphError",
    "DPModule",
    "GradientAudit",
    "GradientError",
    "Influence",
    "MiscompiledError",
    "PublicSizeWarning",
    "UnsoundProgramError",
    "UnsupportedProgramError",
    "Validation",
    "audit_gradients",
    "audit_provenance",
    "dp_compile",
    "losses",
    "plan",
    "register_transfer",
]
