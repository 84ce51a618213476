"""Tensors in plain attributes of a model: those that it came with, and those that private graphs put there."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

from dpgraph.torch_compat import tree_leaves

__all__ = ["HeldTensors"]

REGISTRIES = ("_parameters", "_buffers", "_modules")


class HeldTensors:
    """The tensors in attributes of a model's modules, and in lists and dicts there.

    Those that a model came with are a part of what was given, as its buffers are. One that somebody put there later,
    or wrote to since, may be data of a batch, and is none of these.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [(name, TensorWeakRef(x), x._version) for name, x in _attributes(model)]

    def names(self) -> dict[int, str]:
        """Names of those that are still there as they were, by id."""
        return {id(x): name for name, x, version in self._alive() if x._version == version}

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors as they are now: what a private graph has returned or written, and was proved free of samples."""
        new = {id(x): x for x in tensors}
        names = {id(x): name for name, x, _ in self._alive()}
        others = [(name, TensorWeakRef(x), version) for name, x, version in self._alive() if id(x) not in new]
        self._held = [*others, *((names.get(key, "kept"), TensorWeakRef(x), x._version) for key, x in new.items())]

    def _alive(self) -> Iterator[tuple[str, Tensor, int]]:
        for name, reference, version in self._held:
            x = reference()
            if x is not None:
                yield name, x, version


def _attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES:
                continue
            for leaf in tree_leaves(value):
                if isinstance(leaf, Tensor) and not leaf.requires_grad and not leaf.is_inference():
                    yield f"{path}.{name}".strip("."), leaf
