"""No form makes a tensor that it could do without."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.rows import Rows

NUM_ROWS = 50


class LargestResult(TorchDispatchMode):
    """Notes how many elements the largest result of an operator has."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


TABLE_GRADIENTS = [Dense(torch.randn(2, NUM_ROWS, 4)), Outer(torch.randn(2, 3, NUM_ROWS), torch.randn(2, 3, 4))]


@pytest.mark.parametrize("other", TABLE_GRADIENTS, ids=["dense", "outer"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_with_few_rows_of_a_table_makes_no_table(other: Form, turned: bool) -> None:
    rows = Rows(torch.randint(NUM_ROWS, (2, 5)), torch.randn(2, 5, 4), NUM_ROWS)
    with LargestResult() as largest:
        a, b = (other, rows) if turned else (rows, other)
        a.dot(b)
    assert largest.numel <= 2 * 3 * NUM_ROWS  # what the factors hold, and no more than that
