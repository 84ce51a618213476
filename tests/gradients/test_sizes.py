"""No form makes a tensor that it could do without."""

import pytest
import torch

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.rows import Rows
from tests.gradients.largest import LargestResult

NUM_ROWS = 50


TABLE_GRADIENTS = [Dense(torch.randn(2, NUM_ROWS, 4)), Outer(torch.randn(2, 3, NUM_ROWS), torch.randn(2, 3, 4))]


@pytest.mark.parametrize("other", TABLE_GRADIENTS, ids=["dense", "outer"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_with_few_rows_of_a_table_makes_no_table(other: Form, turned: bool) -> None:
    rows = Rows(torch.randint(NUM_ROWS, (2, 5)), torch.randn(2, 5, 4), NUM_ROWS)
    with LargestResult() as largest:
        a, b = (other, rows) if turned else (rows, other)
        a.product(b)
    assert largest.numel <= 2 * 3 * NUM_ROWS  # what the factors hold, and no more than that
