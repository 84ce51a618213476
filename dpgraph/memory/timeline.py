"""What is live over the course of a step, by module and by kind, as a function of the batch size."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from types import MappingProxyType

import sympy

from dpgraph.capture.batch import SMALLEST_TRACED

__all__ = ["Buffer", "Kind", "Moment", "Timeline"]


class Kind(str, Enum):
    """What a buffer is there for."""

    output = "output"
    saved = "saved activation"
    tangent = "gradient of an output"
    held = "held for the weighted sum"
    temporary = "temporary"
    gradient = "gradient"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that is made within a step.

    Attributes:
        size: bytes, in the symbols of the graph.
        kind: what it is there for.
        module: the module whose values it holds; "" is the model itself.
        first: position of the step before which it is made.
        last: position of the step after which it is freed.
    """

    size: sympy.Expr
    kind: Kind
    module: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What is live while a kernel runs.

    Attributes:
        step: position of the kernel.
        kernel: its name.
        module: the module that it came from.
        by_kind: bytes by kind, the largest first.
        by_module: bytes by module, the largest first.
    """

    step: int
    kernel: str
    module: str
    by_kind: Mapping[str, int]
    by_module: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.by_kind.values())


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bytes over the kernels of a forward and a backward.

    Which kernels there are was decided at the captured batch size and is taken to be the same at any other.

    Attributes:
        kernels: name and module of each, in order.
        forward_steps: how many of them belong to the forward.
        buffers: what is made within the step.
        parameters: bytes of the parameters that the graph reads, which are there before.
        trained: bytes of the trained parameters.
        inputs: bytes of the call's tensors and of the model's buffers, which are there before.
        batch_symbol: the batch size in all sizes.
        batch: the batch size at capture.
        values: the other symbols' values at capture.
    """

    kernels: tuple[tuple[str, str], ...]
    forward_steps: int
    buffers: tuple[Buffer, ...]
    parameters: int
    trained: int
    inputs: sympy.Expr
    batch_symbol: sympy.Symbol
    batch: int
    values: Mapping[sympy.Symbol, int]

    def live(self, batch: int | None = None) -> tuple[int, ...]:
        """Bytes made within the step that are live while each kernel runs."""
        changes = [0] * (len(self.kernels) + 1)
        for buffer, size in zip(self.buffers, self._sizes(batch), strict=True):
            changes[buffer.first] += size
            changes[buffer.last + 1] -= size
        return tuple(accumulate(changes[:-1]))

    def peak(self, batch: int | None = None) -> int:
        """The most bytes made within the step that are live at once; parameters and inputs come on top."""
        return max(self.live(batch), default=0)

    def at_peak(self, batch: int | None = None) -> Moment:
        """What is live when most is."""
        live = self.live(batch)
        return self.at(max(range(len(live)), key=live.__getitem__), batch)

    def at(self, step: int, batch: int | None = None) -> Moment:
        """What is live while a kernel runs."""
        kinds, modules = Counter[str](), Counter[str]()
        for buffer, size in zip(self.buffers, self._sizes(batch), strict=True):
            if buffer.first <= step <= buffer.last:
                kinds[buffer.kind.value] += size
                modules[buffer.module] += size
        name, module = self.kernels[step]
        return Moment(step, name, module, _sorted(kinds), _sorted(modules))

    def total(self, batch: int | None = None, *, optimizer_moments: int = 0) -> int:
        """Bytes of parameters, inputs, the peak within the step, in which the gradients are, and the optimizer's state.

        That state is a number of moments for each trained parameter, in the parameter's dtype.
        """
        state = optimizer_moments * self.trained
        return self.parameters + state + self._value(self.inputs, batch) + self.peak(batch)

    def largest_batch(self, num_bytes: int, *, optimizer_moments: int = 0) -> int:
        """The largest batch for which `total` is at most `num_bytes`; 0 if none fits."""

        def fits(batch: int) -> bool:
            return self.total(batch, optimizer_moments=optimizer_moments) <= num_bytes

        if not fits(1):
            return 0
        low, high = 1, 2
        while fits(high):
            low, high = high, 2 * high
            if high > LARGEST_BATCH:
                return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _sizes(self, batch: int | None) -> Iterator[int]:
        known: dict[sympy.Expr, int] = {}
        for buffer in self.buffers:
            if buffer.size not in known:
                known[buffer.size] = self._value(buffer.size, batch)
            yield known[buffer.size]

    def _value(self, size: sympy.Expr, batch: int | None) -> int:
        """Bytes at a batch size; a small batch is filled up with rows."""
        rows = self.batch if batch is None else max(batch, SMALLEST_TRACED)
        known = size.subs({**self.values, self.batch_symbol: rows})
        return int(known.subs(dict.fromkeys(known.free_symbols, 1)))  # sizes that values decide


LARGEST_BATCH = 2**40


def _sorted(sizes: Counter[str]) -> Mapping[str, int]:
    return MappingProxyType(dict(sizes.most_common()))
