"""All pairs of a program that mixes samples and a twin that does nearly the same and is sound."""

from tests.soundness import memory, numbers, orders, places, products, public_code, statistics, training_code
from tests.soundness.pair import PAIRS, Pair, Program

__all__ = [
    "PAIRS",
    "Pair",
    "Program",
    "memory",
    "numbers",
    "orders",
    "places",
    "products",
    "public_code",
    "statistics",
    "training_code",
]
