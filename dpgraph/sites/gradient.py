"""A site's per-sample gradient, once the graph computes the tensors that it is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from dpgraph.gradients.forms import Form, Gradient, tensors_of, with_tensors

__all__ = ["PerSampleGradient"]


@dataclass(frozen=True, slots=True)
class PerSampleGradient:
    """One parameter's per-sample gradient in a graph.

    Attributes:
        forms: on fake values.
        operands: names of the nodes of the tensors that `forms` hold, in order.
    """

    forms: Gradient
    operands: tuple[str, ...]

    def __call__(self, values: Sequence[Tensor]) -> Gradient:
        """The same forms of other values of the operands."""
        return with_tensors(self.forms, values)

    def parts(self) -> Iterator[tuple[Form, tuple[str, ...]]]:
        """Each form with its operands."""
        names = iter(self.operands)
        for form in self.forms:
            yield form, tuple(islice(names, len(tensors_of((form,)))))
