"""Hold one drawn program to what is known of it: exact if it is sound, refused if a step of it mixes samples."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, measure_exactness, squares
from tests.programs.grammar import Program, programs
from tests.programs.together import SmallCase

__all__ = ["Case", "cases", "check_case", "small_case"]


@dataclass(frozen=True)
class Case:
    """A program and the mechanism to train it with."""

    program: Program
    mode: str = "full"
    clipping: str = "auto-s"
    grouping: str = "flat"
    longer: int = 0  # by how much sequences are longer, or images larger on each side, in a second call


@st.composite
def cases(draw: st.DrawFn, of: st.SearchStrategy[Program] | None = None) -> Case:
    """Programs with modes, clipping functions and groupings.

    R / n is not continuous at 0: a group without gradient (the bias of keys) becomes noise of norm R, anywhere. Hence
    no AUTO-V with groups.
    """
    program = draw(programs() if of is None else of)
    mode = draw(st.sampled_from(["trainable", "full", "bitfit"]))
    grouping = draw(st.sampled_from(["flat", "per-layer", "per-param"]))
    clipping = draw(st.sampled_from(["auto-s", "abadi"] + (["auto-v"] if grouping == "flat" else [])))
    return Case(program, mode, clipping, grouping, draw(st.sampled_from([0, 0, 1, 2])))


def check_case(case: Case, options: CompileOptions = EAGER) -> float | None:
    """The largest relative error of a sound program; None for one that mixes and was refused.

    Raises:
        AssertionError: the gradients disagree with the loop over the samples, or a program that mixes was accepted.
        DPGraphError: a sound program was refused, or one that mixes for another reason than that.
    """
    torch._dynamo.reset()
    model, x = case.program.build()
    mechanism = {"mode": case.mode, "clipping": case.clipping, "grouping": case.grouping, "options": options}
    if case.program.mixes is None:
        module, error = measure_exactness(model, x, **mechanism)
        other = case.program.longer(x, case.longer)
        if other is None:
            return error
        return max(error, measure_exactness(model, other, module=module, **mechanism)[1])
    try:
        squares(dp_compile(model, **mechanism)(x)).sum().backward()
    except UnsoundProgramError:
        return None
    raise AssertionError(f"accepted, though {case.program.mixes} mixes samples")


def small_case(case: Case) -> SmallCase:
    """A sound program, to be compiled together with others of its clipping function."""
    model, x = case.program.build()
    other = case.program.longer(x, case.longer)
    calls = ((x,),) if other is None else ((x,), (other,))
    return SmallCase(repr(case), model, calls, case.mode, case.grouping)
