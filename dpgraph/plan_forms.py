"""Choose which per-sample gradients are held: those that are cheaper made once than got around.

Of a product of matrices, a sample's norm can be taken without its gradient (the ghost norm), or off its gradient, which
is then there for the weighted sum too. The first costs more arithmetic, the second moves more bytes, and each holds
something until the clip factors are known: the operands, or the gradients. All of it is counted, and one price of a
held byte for all sites decides; a memory budget raises the price.

Making gradients for the norm, dropping them and making them again is no third way: it is faster than the ghost norm
only where holding the gradients is faster still and holds less (docs/decisions/009-what-is-held.md).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import assert_never

from dpgraph.gradients.convolved import Convolved
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.ghost_norm import KERNEL_SHARE, kernel_serves
from dpgraph.gradients.gram import gram_share
from dpgraph.gradients.outer import Outer
from dpgraph.options import CompileOptions
from dpgraph.sites.gradient import PerSampleGradient
from dpgraph.torch_compat import size_hint

__all__ = ["Choice", "Plan", "materialise_all", "plan_materialised"]

# Operations that a device does in the time in which it moves a byte: 190 Gflop/s and 20 GB/s of two cores, 156 Tflop/s
# and 2 TB/s of an A100 with TF32.
FLOPS_PER_BYTE = {"cpu": 10.0, "cuda": 80.0}
OTHER_DEVICE = 40.0
# What holding a byte may cost, in bytes moved. At 1, gradients twice as large as the operands were held: 1.2 to 1.5
# times the peak of ordinary training, for no time that could be measured.
PRICE_OF_HELD = 10.0

Choice = Mapping[str, tuple[bool, ...]]
"""For each parameter, which of its forms to materialise."""

Plan = Callable[[Mapping[str, PerSampleGradient]], Choice]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the norm and the weighted sum of one form.

    Attributes:
        flops: multiplications and additions.
        moved: bytes to and from memory.
        held: bytes that stay alive until the clip factors are known.
    """

    flops: float
    moved: float
    held: float

    def total(self, flops_per_byte: float, price: float) -> float:
        """In bytes moved."""
        return self.flops / flops_per_byte + self.moved + price * self.held


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The two ways of one form."""

    ghost: Cost
    materialised: Cost
    flops_per_byte: float

    def materialises(self, price: float) -> bool:
        """Whether the gradients are held, at that price of a held byte."""
        return self.materialised.total(self.flops_per_byte, price) <= self.ghost.total(self.flops_per_byte, price)

    def held(self, price: float) -> float:
        """Bytes that the cheaper way holds."""
        return (self.materialised if self.materialises(price) else self.ghost).held

    @property
    def turning_price(self) -> float:
        """The price above which it is the way that holds less; 0 if that is cheaper at any."""
        less, more = sorted((self.ghost, self.materialised), key=lambda cost: cost.held)
        saved = less.total(self.flops_per_byte, 0) - more.total(self.flops_per_byte, 0)
        return max(0.0, saved / (more.held - less.held)) if more.held > less.held else 0.0


def plan_materialised(gradients: Mapping[str, PerSampleGradient], options: CompileOptions) -> Choice:
    """Which forms to materialise; that changes speed and memory, never a result."""
    products = {
        (name, i): _alternatives(form)
        for name, gradient in gradients.items()
        for i, form in enumerate(gradient.forms)
        if isinstance(form, (Outer, Convolved))
    }
    match options.norm_strategy:
        case "ghost":
            chosen = set()
        case "materialise":
            chosen = set(products)
        case "auto":
            price = _price_within(list(products.values()), options.memory_budget)
            chosen = {key for key, ways in products.items() if ways.materialises(price)}
        case _:
            assert_never(options.norm_strategy)
    return {name: tuple((name, i) in chosen for i in range(len(g.forms))) for name, g in gradients.items()}


def materialise_all(gradients: Mapping[str, PerSampleGradient]) -> Choice:
    """Every per-sample gradient held as a tensor [B, *shape], those of tables too."""
    return {name: tuple(not isinstance(form, Dense) for form in gradient.forms) for name, gradient in gradients.items()}


def _price_within(products: Sequence[Alternatives], memory_budget: float) -> float:
    """The lowest price at which all sites together hold at most that share of what they hold at the usual one."""

    def held(price: float) -> float:
        return sum(ways.held(price) for ways in products)

    turning = (ways.turning_price * (1 + 1e-9) for ways in products)  # a little more, or rounding decides
    prices = [PRICE_OF_HELD, *sorted(price for price in turning if price > PRICE_OF_HELD)]
    limit = memory_budget * held(PRICE_OF_HELD)
    return next((price for price in prices if held(price) <= limit), prices[-1])


def _alternatives(form: Outer | Convolved) -> Alternatives:
    if isinstance(form, Outer):
        first, laid_out = form.u, 0
        batch, positions, rows, columns = *_sizes(form.u), _sizes(form.v)[2]
        operands, groups = _numel(form.u) + _numel(form.v), 1
    else:
        first, groups = form.grad, form.geometry.groups
        over, under = form.sides
        batch, images, rows, *space = _sizes(over)
        positions, columns = images * math.prod(space), _sizes(under)[2] * math.prod(_sizes(form.weight)[2:])
        operands, laid_out = _numel(form.grad) + _numel(form.image), 2 * batch * positions * columns
    size, gradients = first.element_size(), batch * rows * columns // groups
    making = 2 * positions * gradients
    if groups == 1:
        pairs = batch * positions**2
        by_kernel = kernel_serves(positions, first)
        share, between = (KERNEL_SHARE, 0) if by_kernel else (gram_share(positions), 4 * pairs)
        norm = 2 * pairs * share * (rows + columns)
    else:
        norm, between = making, 2 * gradients
    flops_per_byte = FLOPS_PER_BYTE.get(first.device.type, OTHER_DEVICE)
    return Alternatives(
        ghost=Cost(norm + making, size * (laid_out + 3 * operands + between), size * operands),
        materialised=Cost(making, size * (laid_out + operands + 3 * gradients), size * gradients),
        flops_per_byte=flops_per_byte,
    )


def _sizes(x: Tensor) -> list[int]:
    return [size_hint(size) for size in x.shape]


def _numel(x: Tensor) -> int:
    return math.prod(_sizes(x))
