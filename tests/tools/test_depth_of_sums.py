"""The depth of a sum is found, and that of torch's products is what the sensitivity takes it to be."""

import pytest
import torch

from dpgraph.gradients.forms import BLOCK
from dpgraph.sums import WITHIN_PART
from tools.depth_of_sums import depth_of


def test_depths_of_trees_that_are_known(monkeypatch):
    def one_by_one(u, v):
        total = torch.zeros(u.shape[0], v.shape[1])
        for t in range(u.shape[1]):
            total = total + u[:, t : t + 1] * v[t]
        return total

    def in_halves(u, v):
        if u.shape[1] == 1:
            return u * v
        half = u.shape[1] // 2
        return in_halves(u[:, :half], v[:half]) + in_halves(u[:, half:], v[half:])

    for product, depth in ((one_by_one, 15), (in_halves, 4)):
        monkeypatch.setattr(torch.Tensor, "__matmul__", product)
        assert depth_of(16, 16, 16) == depth
        assert depth_of(16, 16, 5) == depth


@pytest.mark.parametrize("sizes", [(1024, 64, 64), (2048, 256, 512), (8192, 64, 128)])
def test_products_are_no_deeper_than_the_sensitivity_takes_them_to_be(sizes):
    assert 2 <= depth_of(*sizes) <= min(WITHIN_PART, BLOCK)
