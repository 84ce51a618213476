"""What the rounding of sums over samples adds to the sensitivity."""

from dataclasses import dataclass

from dpgraph.checks import require_count

__all__ = ["Sums", "check_sums"]

# Half the distance from 1 to the next number of float32, in which gradients are summed, or better.
HALF_ULP = 2.0**-24
# Roundings that a part's sum is taken to go through beside those between the parts. A library does not document its
# order of additions: this is what experiments show (tools/depth_of_sums.py) for up to 12,000 positions of all samples.
WITHIN_PART = 256


@dataclass(frozen=True, slots=True)
class Sums:
    """How many samples, in how many backwards, are added up between two steps of an optimizer at most.

    Attributes:
        max_samples: samples of all backwards together.
        max_parts: backwards.
    """

    max_samples: int = 1024
    max_parts: int = 16

    @property
    def rounding(self) -> float:
        """How much of R the rounding of a sum may move it by when one sample comes or goes.

        Adding a part rounds a sum of norm n R at most, by half an ulp of it, in each of the two runs; parts before the
        last have a part of that norm only, half of it on average. See docs/arithmetic.md, and Casacuberta et al. 2022
        (arXiv:2207.10635) for what happens where this is left out.
        """
        return HALF_ULP * self.max_samples * (self.max_parts + WITHIN_PART)


def check_sums(sums: Sums) -> None:
    """Pass if the numbers are counts.

    Raises:
        ArgumentError: one is not.
    """
    why = "rounding moves sums of more samples, in more backwards, by more, and the sensitivity must cover that"
    require_count("max_samples", sums.max_samples, minimum=1, why=why)
    require_count("max_parts", sums.max_parts, minimum=1, why=why)
