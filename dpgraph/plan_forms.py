"""Choose how the norm and the weighted sum of each matrix product are computed."""

from collections.abc import Callable

import torch
from typing_extensions import assert_never

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.outer import Outer
from dpgraph.options import CompileOptions

__all__ = ["materialise_all", "plan_forms"]

# Materialised gradients are read and written a few times where the ghost norm multiplies; they pay while they are
# at most this many times the size of the operands they are made of. `tools/bench/step_time.py` gave the figure.
REUSE_RATIO = 1.0


def plan_forms(options: CompileOptions) -> Callable[[Form], Form]:
    """The choice for each form that a gradient rule gives; it changes speed and memory, never a result."""

    def choose(form: Form) -> Form:
        if not isinstance(form, Outer):
            return form
        match options.norm_strategy:
            case "ghost":
                return form
            case "materialise":
                return Dense(form.materialise())
            case "auto":
                return Dense(form.materialise()) if _is_small(form) else form
            case _:
                assert_never(options.norm_strategy)

    return choose


def materialise_all(form: Form) -> Form:
    """Every per-sample gradient held as a tensor [B, *shape], those of tables too."""
    return Dense(form.materialise())


def _is_small(form: Outer) -> bool:
    """Whether the gradients [p, d] of a sample take no more room than its operands [T, p] and [T, d]."""
    (_, positions, rows), columns = form.u.shape, form.v.shape[2]
    return bool(_hint(rows) * _hint(columns) <= REUSE_RATIO * _hint(positions) * (_hint(rows) + _hint(columns)))


def _hint(size: int | torch.SymInt) -> int:
    """A size as it was when the graph was captured: a choice of speed must not become a guard."""
    return size.node.hint if isinstance(size, torch.SymInt) else size
