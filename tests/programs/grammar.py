"""Random models: chains of steps on [B, T, d] or [B, C, H, W], drawn by hypothesis.

What is drawn is which steps, with which shapes and options; values are random. Sizes are small and collide often
(B == T == d), since an analysis that guesses from sizes goes wrong there. Into about a quarter of the programs a step
is planted that mixes samples; the program knows that it has one.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.programs.features import FEATURES
from tests.programs.images import IMAGES
from tests.programs.mixing import MIXES_IMAGES, MIXES_SEQUENCES, NEEDS_POSITIONS
from tests.programs.positions import POSITIONS

__all__ = [
    "SEQUENCE_STEPS",
    "ImageProgram",
    "Program",
    "SequenceProgram",
    "image_programs",
    "programs",
    "sequence_programs",
]

SEQUENCE_STEPS = {**FEATURES, **POSITIONS}
assert len(SEQUENCE_STEPS) == len(FEATURES) + len(POSITIONS)


@dataclass(frozen=True)
class SequenceProgram:
    """What was drawn: the sizes, the steps, whether the input are ids, what is frozen, and which step mixes."""

    batch: int
    positions: int
    width: int
    steps: tuple[str, ...]
    from_ids: bool = False
    tied: bool = False
    frozen: frozenset[int] = frozenset()
    seed: int = 0
    mixes: str | None = None

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in float64 and its input. The last parameter is a bias, and is trained."""
        torch.manual_seed(self.seed)
        table = {**SEQUENCE_STEPS, **MIXES_SEQUENCES}
        chain = _chain(self.steps, [table[name](self.positions, self.width) for name in self.steps])
        head = nn.Linear(self.width, 4)
        if self.from_ids:
            words = nn.Embedding(4, self.width)
            chain = OrderedDict([("words", words), *chain.items()])
            if self.tied:
                head.weight = words.weight
            x = torch.randint(0, 4, (self.batch, self.positions))
        else:
            x = torch.randn(self.batch, self.positions, self.width, dtype=torch.float64)
        model = nn.Sequential(OrderedDict([*chain.items(), ("head", head)])).double()
        parameters = list(model.parameters())
        for i in self.frozen:
            if i < len(parameters) - 1:
                parameters[i].requires_grad_(False)
        return model, x

    def longer(self, x: Tensor, by: int) -> Tensor | None:
        """Two samples more and so many positions more than in x; None if the model takes no other than these."""
        shape = (len(x) + 2, x.shape[1] + by, *x.shape[2:])
        other = torch.randn(shape, dtype=x.dtype) if x.is_floating_point() else torch.randint(0, 4, shape)
        return other if by and _runs(self, other) else None


@dataclass(frozen=True)
class ImageProgram:
    """What was drawn: the sizes, the steps, the memory format, and which step mixes."""

    batch: int
    channels: int
    size: int
    steps: tuple[str, ...]
    channels_last: bool = False
    seed: int = 0
    mixes: str | None = None

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in float64 and its input."""
        torch.manual_seed(self.seed)
        table = {**IMAGES, **MIXES_IMAGES}
        chain = _chain(self.steps, [table[name](self.channels) for name in self.steps])
        stem = nn.Conv2d(3, self.channels, 1)
        model = nn.Sequential(OrderedDict([("stem", stem), *chain.items()])).double()
        x = torch.randn(self.batch, 3, self.size, self.size, dtype=torch.float64)
        if self.channels_last:
            return model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        return model, x

    def longer(self, x: Tensor, by: int) -> Tensor | None:
        """Two samples more and so many rows and columns more than in x; None if the model takes no other than these."""
        other = torch.randn(len(x) + 2, 3, self.size + by, self.size + by, dtype=x.dtype)
        if self.channels_last:
            other = other.contiguous(memory_format=torch.channels_last)
        return other if by and _runs(self, other) else None


Program = SequenceProgram | ImageProgram


def _chain(names: tuple[str, ...], steps: list[nn.Module]) -> "OrderedDict[str, nn.Module]":
    return OrderedDict((f"{i}_{name}", step) for i, (name, step) in enumerate(zip(names, steps, strict=True)))


@st.composite
def sequence_programs(draw: st.DrawFn, max_steps: int = 4) -> SequenceProgram:
    """Programs on [B, T, d] or on ids [B, T]; often all sizes are equal."""
    common = draw(st.none() | st.integers(2, 4))
    batch = draw(st.sampled_from([0, 1, 2, 3, 4])) if common is None else common
    positions = draw(st.integers(1, 4)) if common is None else common
    width = draw(st.integers(2, 4)) if common is None else common
    mixers = [name for name in MIXES_SEQUENCES if positions > 1 or name not in NEEDS_POSITIONS]
    steps, mixes = draw(_steps([*SEQUENCE_STEPS], mixers, max_steps))
    return SequenceProgram(
        batch,
        positions,
        width,
        steps,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.frozensets(st.integers(0, 8), max_size=3)),
        draw(st.integers(0, 99)),
        mixes,
    )


@st.composite
def image_programs(draw: st.DrawFn, max_steps: int = 3) -> ImageProgram:
    """Programs on [B, C, H, W] that PyTorch itself can run: images may shrink too much for a kernel or a padding."""
    channels, batch, size = draw(st.sampled_from([2, 4])), draw(st.integers(0, 4)), draw(st.integers(3, 6))
    steps, mixes = draw(_steps([*IMAGES], [*MIXES_IMAGES], max_steps))
    program = ImageProgram(batch, channels, size, steps, draw(st.booleans()), draw(st.integers(0, 99)), mixes)
    _, x = program.build()
    assume(_runs(program, x.new_ones(2, *x.shape[1:])))
    return program


def programs() -> st.SearchStrategy[Program]:
    """Programs of all kinds, two on sequences for each on images."""
    return st.one_of(sequence_programs(), sequence_programs(), image_programs())


@st.composite
def _steps(draw: st.DrawFn, sound: list[str], mixing: list[str], max_steps: int) -> tuple[tuple[str, ...], str | None]:
    """Names of steps, and which of them mixes: one in a quarter of the draws or so, at any place."""
    steps = draw(st.lists(st.sampled_from(sound), min_size=1, max_size=max_steps))
    if not draw(st.sampled_from([False, False, True])):
        return tuple(steps), None
    name, place = draw(st.sampled_from(mixing)), draw(st.integers(0, len(steps)))
    return (*steps[:place], name, *steps[place:]), name


def _runs(program: Program, x: Tensor) -> bool:
    """Whether x goes through the model and gives something of each sample."""
    model, _ = program.build()
    try:
        with torch.no_grad():
            found = model(x)
            return found.numel() > 0 and len(found) == len(x)
    except RuntimeError:
        return False
