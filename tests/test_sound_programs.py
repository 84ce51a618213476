"""Sound programs of public code are exact, on both backends; those that cannot be seen to be sound are refused so."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, UnsoundProgramError, UnsupportedProgramError, dp_compile
from tests.programs.exact import EAGER, check_exact
from tests.sound_programs import PROGRAMS, B, D, Run, SoundProgram, T, bert_rows

INDUCTOR = CompileOptions(backend="inductor")


def draw(program: SoundProgram, dtype: torch.dtype) -> tuple[nn.Module, list[Tensor]]:
    """The module and its inputs, made in the dtype: a conversion would change their strides."""
    torch.manual_seed(5)
    torch.set_default_dtype(dtype)
    try:
        return program.make(), program.inputs()
    finally:
        torch.set_default_dtype(torch.float32)


def how(program: SoundProgram) -> dict[str, object]:
    if program.axes is None:
        return {}
    named = {f"args[{i}]": axis for i, axis in enumerate(program.axes)}
    return {"batch_dims": list(program.axes), "named_batch_dims": named}


@pytest.mark.parametrize("name", PROGRAMS)
def test_sound_programs_are_exact(name):
    model, inputs = draw(PROGRAMS[name], torch.float64)
    check_exact(model, *inputs, clipping="auto-v", **how(PROGRAMS[name]))


class Together(nn.Module):
    """Several programs in one graph, each with inputs of its own; their outputs [B, ...] side by side."""

    def __init__(self, models: list[nn.Module], num_inputs: list[int]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.num_inputs = num_inputs

    def forward(self, *args: Tensor) -> Tensor:
        outputs, start = [], 0
        for model, num in zip(self.models, self.num_inputs, strict=True):
            output = model(*args[start : start + num])
            outputs.append(output.reshape(output.shape[0], -1))
            start += num
        return torch.cat(outputs, 1)


GROUPS = {
    "recurrent": [n for n in PROGRAMS if "LSTM" in n or "GRU" in n or "RNN" in n],
    "rows": [n for n in PROGRAMS if "place" in n or "offsets" in n or "edges" in n or "margin" in n or "last row" in n],
    "kernels": [n for n in PROGRAMS if "convolution" in n or "correlation" in n],
}
GROUPS["others"] = [n for n in PROGRAMS if not any(n in names for names in GROUPS.values())]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.float64, INDUCTOR), (torch.float32, INDUCTOR), (torch.float32, EAGER)],
    ids=["float64-inductor", "float32-inductor", "float32-eager"],
)
def test_sound_programs_are_exact_together(group, dtype, options):
    drawn = [draw(PROGRAMS[name], dtype) for name in GROUPS[group]]
    model = Together([m for m, _ in drawn], [len(inputs) for _, inputs in drawn])
    axes = [
        a
        for name, (_, inputs) in zip(GROUPS[group], drawn, strict=True)
        for a in PROGRAMS[name].axes or [0] * len(inputs)
    ]
    check_exact(
        model,
        *(x for _, inputs in drawn for x in inputs),
        batch_dims=axes,
        named_batch_dims={f"args[{i}]": axis for i, axis in enumerate(axes)},
        options=options,
        tolerance=1e-10 if dtype is torch.float64 else 1e-3,
        loss=lambda y: (y.flatten(1).sin() + y.flatten(1).square() / 4).sum(1),
    )
