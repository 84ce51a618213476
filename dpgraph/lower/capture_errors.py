"""Turn what the tracer raises into errors of dpgraph, with the user's line."""

import re
from typing import Any

import sympy

from dpgraph.capture.place import parse_line
from dpgraph.errors import CaptureError, DPGraphError, Place, SourceLine, UnsoundProgramError
from dpgraph.torch_compat import BackendCompilerFailed, ConstraintViolationError, ShapeEnv

__all__ = ["batch_size_fixed", "find_specialisation", "translate"]

WHY_ONE_GRAPH = "only a graph that holds the whole forward and backward can be shown to keep the samples apart"
USER_CODE = re.compile(r"from user code:(?P<trace>.*)", re.DOTALL)


def translate(error: Exception) -> DPGraphError | None:
    """The dpgraph error behind an exception of the tracer; None if it is the user's own."""
    if isinstance(error, DPGraphError):
        return error
    if isinstance(error, BackendCompilerFailed):
        inner = error.inner_exception
        return inner if isinstance(inner, DPGraphError) else _failed(inner)
    if isinstance(error, ConstraintViolationError) or "Constraints violated" in str(error):
        return batch_size_fixed(str(error), parse_line(str(error)))
    if type(error).__module__.startswith("torch._dynamo"):
        return _not_one_graph(error)
    return None


def batch_size_fixed(detail: str, line: SourceLine | None) -> UnsoundProgramError:
    """The program makes sense for one batch size alone."""
    return UnsoundProgramError(
        "the program fixes the number of samples in the batch",
        place=Place(op=detail.strip().splitlines()[0] if detail.strip() else None, line=line),
        why="an op that works for one batch size alone pairs samples with one another or with places in the batch, "
        "and Poisson sampling draws batches of every size",
        fix="write the size of the batch as x.shape[0], never as a number, and do not move samples into other axes",
    )


def find_specialisation(env: ShapeEnv) -> tuple[str, SourceLine | None]:
    """The first guard that fixed a size to a number, and the user's line that it comes from."""
    for guard in env.guards:
        if isinstance(guard.expr, sympy.Eq) and any(side.is_Integer for side in guard.expr.args):
            return str(guard.expr), parse_line(_trace_of(guard))
    return "the number of samples became a constant", None


def _trace_of(guard: Any) -> str:
    location = guard.sloc
    return str(location.maybe_user_loc or location.framework_loc)


def _not_one_graph(error: Exception) -> CaptureError:
    text = str(error)
    found = USER_CODE.search(text)
    line = parse_line(found["trace"]) if found else None
    return CaptureError(
        f"the model could not be traced into one graph: {text.strip().splitlines()[0]}",
        place=Place(line=line),
        why=WHY_ONE_GRAPH,
        fix="remove the graph break: no .item(), print or data-dependent branches in forward; "
        "torch.compile(model, fullgraph=True) must accept it",
    )


def _failed(error: Exception) -> CaptureError:
    first_line = str(error).strip().partition("\n")[0]
    failure = CaptureError(
        f"compiling the graph failed: {type(error).__name__}: {first_line}",
        why=WHY_ONE_GRAPH,
        fix="if torch.compile(model, fullgraph=True) accepts the model, this is a defect of dpgraph: report it with "
        "the traceback above",
    )
    failure.__cause__ = error
    return failure
