"""Every program that mixes samples is refused at the line that mixes, and every sound twin is accepted and exact."""

import copy
import inspect

import pytest
import torch

from dpgraph import UnsoundProgramError, dp_compile
from tests.programs.exact import EAGER, INDUCTOR, check_exact, squares
from tests.soundness.programs import PAIRS, Program


def marked_line(function) -> int:
    """Number of the line with the comment `# mixes`."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = (i for i, line in enumerate(lines) if "# mixes" in line)
    return first + offset


def make(function, parts) -> Program:
    torch.manual_seed(3)
    return Program(function, **parts).double().train()


def test_there_are_as_many_as_promised():
    assert len(PAIRS) >= 60
    assert len({p.name for p in PAIRS}) == len(PAIRS)


# Nothing is generated for a program that is refused, so that Inductor costs no more than the other backend; but it
# captures in another way, and what is refused must not depend on that.
@pytest.mark.parametrize("options", [EAGER, INDUCTOR], ids=lambda options: options.backend)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_programs_that_mix_samples_are_refused(pair, options):
    model = make(pair.unsound, pair.parts)
    model.layer.bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    x = torch.randn(6, *pair.shape, dtype=torch.float64)
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "full", options=options)(x)
    error = caught.value
    assert error.what
    assert error.why
    assert error.fix
    line = error.place.line
    assert line is not None, str(error)
    assert line.filename == inspect.getsourcefile(pair.unsound), str(error)
    assert line.lineno == marked_line(pair.unsound), str(error)
    assert "# mixes" in line.code
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_sound_twins_are_exact(pair):
    model = make(pair.sound, pair.parts)
    x = torch.randn(6, *pair.shape, dtype=torch.float64)
    check_exact(model, x, clipping="auto-v", loss=squares)
