"""How large the results of operators get while something is computed."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LargestResult"]


class LargestResult(TorchDispatchMode):
    """Notes, while it is active, how many elements the largest result has, of one operator or of all.

    Attributes:
        numel: elements; 0 if there was no result.
    """

    def __init__(self, of: Any = None) -> None:
        super().__init__()
        self.of = of
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and self.of in (None, func):
            self.numel = max(self.numel, result.numel())
        return result
