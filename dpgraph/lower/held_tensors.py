"""Tensors that a model holds as plain attributes when it is compiled: a part of what was given, as its buffers are."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

from dpgraph.torch_compat import tree_leaves

__all__ = ["HeldTensors"]

REGISTRIES = ("_parameters", "_buffers", "_modules")


class HeldTensors:
    """The tensors in attributes of a model's modules, and in lists and dicts there.

    One that was put there later, or was written to since, may be data of a batch, and is none of these.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [(name, TensorWeakRef(x), x._version) for name, x in _attributes(model)]

    def names(self) -> dict[int, str]:
        """Names of those that are still there as they were, by id."""
        alive = [(name, reference(), version) for name, reference, version in self._held]
        return {id(x): name for name, x, version in alive if x is not None and x._version == version}


def _attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES:
                continue
            for leaf in tree_leaves(value):
                if isinstance(leaf, Tensor) and not leaf.requires_grad and not leaf.is_inference():
                    yield f"{path}.{name}".strip("."), leaf
