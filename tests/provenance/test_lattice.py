"""Two values that are paired element by element are per sample on one axis that both cut in the same way, or not."""

import pytest
import sympy

from dpgraph.provenance.lattice import PerSample, meet

TWO, THREE = sympy.Integer(2), sympy.Integer(3)
PLAIN, INNER, OUTER = PerSample(0), PerSample(0, inner=TWO), PerSample(0, outer=TWO)
ANY = PerSample(0, inner=TWO, exchangeable=True)


@pytest.mark.parametrize(
    ("a", "b", "met"),
    [
        (PLAIN, PLAIN, PLAIN),
        (PLAIN, PerSample(1), None),
        (ANY, PerSample(1, inner=TWO), None),
        (INNER, OUTER, None),
        (INNER, PerSample(0, inner=THREE), None),
        (OUTER, OUTER, OUTER),
        # what is exchangeable takes the split of what is not
        (ANY, INNER, INNER),
        (INNER, ANY, INNER),
        (ANY, OUTER, OUTER),
        (OUTER, ANY, OUTER),
        (ANY, ANY, ANY),
    ],
)
def test_meet(a, b, met):
    assert meet(a, b) == met
