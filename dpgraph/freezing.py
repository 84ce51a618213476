"""Which parameters the author of a model froze, and which dpgraph did.

A model may come with parameters that are not meant to be trained: tables of sinusoids, a backbone, the base below an
adapter. `requires_grad=False` says so, and no mode trains them; `also_train` does, by name. But dpgraph sets that flag
too, so that optimizers skip what a mode leaves alone, and a second phase of training must tell the two apart. So it is
remembered, beside the parameters and not on them, which flags were changed here.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Freezing", "find_freezing", "required_by_author", "set_requires_grad"]


# The author's flag of each parameter that got the other one here; entries go with their parameter.
CHANGED: MutableMapping[nn.Parameter, bool] = WeakTensorKeyDictionary()


def required_by_author(parameter: nn.Parameter) -> bool:
    """Whether a parameter requires grad as its author, or anybody else outside dpgraph, set it last.

    Setting a flag to the value that dpgraph gave it cannot be seen.
    """
    # a flag that was set back by somebody else is the author's again, since there are but two
    return CHANGED.get(parameter, parameter.requires_grad)


def set_requires_grad(parameter: nn.Parameter, flag: bool, *, authored: bool | None = None) -> None:
    """Set a flag, and remember its author's, which is the one from before unless `authored` gives it."""
    authored = required_by_author(parameter) if authored is None else authored
    parameter.requires_grad_(flag)
    if flag == authored:
        CHANGED.pop(parameter, None)
    else:
        CHANGED[parameter] = authored


@dataclass(frozen=True, slots=True)
class Freezing:
    """Names of parameters by who decided whether they are trained.

    Attributes:
        by_author: not trained: they required no grad when the model came.
        by_mode: not trained: the mode leaves them alone.
        unfrozen: trained since `also_train` names them: they required no grad when the model came.
    """

    by_author: tuple[str, ...]
    by_mode: tuple[str, ...]
    unfrozen: tuple[str, ...]


def find_freezing(model: nn.Module, trained: Iterable[str]) -> Freezing:
    """Tell the parameters of a compiled model apart."""
    names = set(trained)
    frozen = [(name, required_by_author(p)) for name, p in model.named_parameters() if name not in names]
    authored = {name: required_by_author(p) for name, p in model.named_parameters() if name in names}
    return Freezing(
        by_author=tuple(name for name, wanted in frozen if not wanted),
        by_mode=tuple(name for name, wanted in frozen if wanted),
        unfrozen=tuple(name for name, wanted in authored.items() if not wanted),
    )
