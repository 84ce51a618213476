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
        self._held = {id(x): (name, TensorWeakRef(x), x._version) for name, x in _attributes(model)}

    def names(self) -> dict[int, str]:
        """Names of those that are still there as they were, by id."""
        alive = ((key, name, reference(), version) for key, (name, reference, version) in self._held.items())
        return {key: name for key, name, x, version in alive if x is not None and x._version == version}

    def keep(self, read: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        """Note what a run of a private graph has left, all of it proved free of samples.

        Args:
            read: what the graph took for the same for all samples, and may have written; of others nothing is kept.
            made: what it returned, and may have assigned.
        """
        alive = {key: held for key, held in self._held.items() if held[1]() is not None}
        named = [(x, alive[id(x)][0]) for x in read if id(x) in alive] + [(x, "kept") for x in made]
        self._held = alive | {id(x): (name, TensorWeakRef(x), x._version) for x, name in named}


def _attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in REGISTRIES:
                continue
            for leaf in tree_leaves(value):
                if isinstance(leaf, Tensor) and not leaf.requires_grad and not leaf.is_inference():
                    yield f"{path}.{name}".strip("."), leaf
