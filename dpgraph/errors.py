"""Every error that dpgraph raises.

    DPGraphError
    ├── ArgumentError (ValueError)       an argument of the call is not usable
    ├── CaptureError                     the model could not be traced into one graph
    ├── MiscompiledError                 a compiled graph computes something else than its operators
    ├── UnsoundProgramError              a sample influences another sample's gradient
    └── UnsupportedProgramError          dpgraph has no proof, or no rule, for an op

Each message has four parts: what happened; where (op with shape, parameter, the user's source line); why it
matters for privacy; what to do. The parts are also attributes, so that tools need not parse the text.
"""

from dataclasses import dataclass

__all__ = [
    "ArgumentError",
    "CaptureError",
    "DPGraphError",
    "MiscompiledError",
    "Place",
    "SourceLine",
    "UnsoundProgramError",
    "UnsupportedProgramError",
]


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's program.

    Attributes:
        filename: path of the file as Python knows it.
        lineno: line number, from 1.
        function: name of the enclosing function.
        code: the text of the line, stripped; empty when the source is not at hand.
    """

    filename: str
    lineno: int
    function: str
    code: str

    def __str__(self) -> str:
        code = f": {self.code}" if self.code else ""
        return f"{self.filename}:{self.lineno} in {self.function}{code}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model something happened; every part may be unknown (None).

    Attributes:
        op: the operator with the shapes of its operands, as text.
        module: dotted path of the module that ran it.
        parameter: name of the parameter concerned.
        line: the user's source line.
    """

    op: str | None = None
    module: str | None = None
    parameter: str | None = None
    line: SourceLine | None = None

    def __str__(self) -> str:
        named = [("op", self.op), ("module", self.module), ("parameter", self.parameter), ("line", self.line)]
        return "\n".join(f"    {name:<10}{value}" for name, value in named if value)


class DPGraphError(Exception):
    """Base of all errors of dpgraph.

    Attributes:
        what: what happened, one sentence.
        place: where it happened.
        why: why it matters for privacy.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, why: str, fix: str, place: Place | None = None) -> None:
        self.what = what
        self.place = place or Place()
        self.why = why
        self.fix = fix
        where = f"\n  where:\n{self.place}" if str(self.place) else ""
        super().__init__(f"{what}{where}\n  why it matters: {why}\n  what to do: {fix}")


class ArgumentError(DPGraphError, ValueError):
    """An argument of the call is not usable: an unknown mode, a threshold that is not finite, nothing to train."""


class CaptureError(DPGraphError):
    """The model could not be traced into one graph: a graph break, or a batch dimension that is not free."""


class MiscompiledError(DPGraphError):
    """What ran is not what was analysed: the backend's code and the graph's operators, run one by one, differ."""


class UnsoundProgramError(DPGraphError):
    """A sample influences the gradient of another one, so clipping would not bound what a sample contributes."""


class UnsupportedProgramError(DPGraphError):
    """dpgraph cannot prove the program sound, or has no rule for an op in it; it refuses instead of guessing."""
