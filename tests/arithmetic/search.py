"""Hill climbing for the sample that adds most, over data that is built to cancel, to overflow and to underflow."""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from tests.arithmetic.programs import COLUMNS, LENGTH, ROWS, Sample

__all__ = ["Attack", "climb", "draw_attack"]

# Alternating signs, halves of opposite sign, grades of size in opposite pairs, and no pattern.
SIGNS = ("alternating", "halves", "graded", "random")


@dataclass(frozen=True)
class Attack:
    """What a sample is made of.

    Attributes:
        signs: the pattern in which the gradients are opposite.
        size, gradient: powers of ten of x and of c.
        noise, unlike: powers of ten, beside those, of how much rows of x and of c differ from one another.
        seed: for all random numbers.
    """

    signs: str
    size: float
    gradient: float
    noise: float
    unlike: float
    seed: int

    def sample(self, dtype: torch.dtype) -> Sample:
        """The sample; its numbers are finite in the dtype."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x = normal(COLUMNS) + 10.0**self.noise * normal(LENGTH, COLUMNS)
        c = normal(ROWS) + 10.0**self.unlike * normal(LENGTH, ROWS)
        t = torch.arange(LENGTH, dtype=torch.float64)
        match self.signs:
            case "alternating":
                sign = 1 - 2 * (t % 2)
            case "halves":
                sign = torch.where(t < LENGTH // 2, 1.0, -1.0)
            case "graded":
                sign = (1 - 2 * (t % 2)) * 10.0 ** -(t // 2)
            case _:
                sign = normal(LENGTH)
        ids = torch.randint(2, (LENGTH,), generator=generator)
        most = torch.finfo(dtype).max
        x, c = 10.0**self.size * x, 10.0**self.gradient * c * sign[:, None]
        return Sample(x.clamp(-most, most).to(dtype), c.clamp(-most, most).to(dtype), ids)


def draw_attack(source: random.Random, *, most: int) -> Attack:
    """An attack with numbers of up to `most` powers of ten, either way."""
    size = source.choice([0.0, source.uniform(0, 8), source.uniform(-most, most)])
    gradient = source.choice([0.0, -size, source.uniform(-4, 4), source.uniform(-most, most)])
    noise, unlike = (source.choice([-30.0, source.uniform(-9, 0)]) for _ in range(2))
    return Attack(source.choice(SIGNS), size, gradient, noise, unlike, source.randrange(2**32))


def climb(start: Attack, added: Callable[[Attack], float], source: random.Random, num_tries: int) -> float:
    """What the attack adds that adds most of those that small changes lead to."""
    best, most = start, added(start)
    for _ in range(num_tries):
        tried = _changed(best, source)
        found = added(tried)
        if found >= most:
            best, most = tried, found
    return most


def _changed(attack: Attack, source: random.Random) -> Attack:
    name = source.choice([field.name for field in fields(attack)])
    match getattr(attack, name):
        case str():
            return replace(attack, **{name: source.choice(SIGNS)})
        case int():
            return replace(attack, **{name: source.randrange(2**32)})
        case value:
            return replace(attack, **{name: value + source.gauss(0, 1)})
