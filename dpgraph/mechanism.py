"""The mechanism: which parameters are trained, in which groups, and how their gradients are clipped."""

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from dpgraph.checks import require_choice, require_positive
from dpgraph.clipping import ClippingFunction, find_clipping
from dpgraph.clipping_contract import check_contract
from dpgraph.errors import ArgumentError
from dpgraph.freezing import required_by_author
from dpgraph.gradients.certified import DELTA
from dpgraph.parameter_memory import check_memory
from dpgraph.sums import Sums, check_sums

__all__ = ["Grouping", "LossReduction", "Mechanism", "Mode", "define_mechanism", "is_bias"]

Mode = Literal["full", "bitfit", "trainable"]
LossReduction = Literal["sum", "mean"]
Grouping = Literal["flat", "per-layer", "per-param"] | Mapping[str, str | Sequence[str]]

BIAS = re.compile(r"(^|_)bias(_|$)")
# Of a bound R between 2^-20 and 2^20, weights are taken as they are.
FAR_EXPONENT = 20
SMALLEST_BOUND, LARGEST_BOUND = 2.0**-100, 2.0**100
NOT_CLIPPED = "a parameter whose group is not known could not be clipped"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What the sensitivity depends on; options that change speed or memory stand apart, in `CompileOptions`.

    Formal guarantee: for each call of the module, the gradients of all trained parameters together are a sum over the
    samples of terms of Euclidean norm at most `sensitivity`, each of which depends on one sample alone.

    Attributes:
        mode: what was asked for.
        trained: names of the trained parameters, in the order of the model.
        group_of: the group of each, 0..K-1.
        group_names: names of the K groups.
        clipping: the clipping function.
        max_grad_norm: R, the bound for all groups together.
        loss_reduction: whether the loss is a sum or a mean over the samples.
        sums: how much is added up between two steps.
        dtypes: those that norms are in.
    """

    mode: Mode
    trained: tuple[str, ...]
    group_of: Mapping[str, int]
    group_names: tuple[str, ...]
    clipping: ClippingFunction
    max_grad_norm: float
    loss_reduction: LossReduction
    sums: Sums
    dtypes: frozenset[torch.dtype]

    def with_bound(self, max_grad_norm: float) -> "Mechanism":
        """The same with another R.

        Raises:
            ArgumentError: it is no number above 0, or the clipping function breaks its contract there.
        """
        require_positive(
            "max_grad_norm",
            max_grad_norm,
            why="it is the bound on what a sample contributes, which the noise is scaled to",
            hint="1.0 is usual, and with automatic clipping it only scales the step",
        )
        if not SMALLEST_BOUND <= max_grad_norm <= LARGEST_BOUND:
            raise ArgumentError(
                f"max_grad_norm is {max_grad_norm!r}",
                why="so near the smallest or the largest numbers, products of gradients and factors lose digits",
                fix="give a number from 2^-100 to 2^100, about 1e-30 to 1e30",
            )
        found = replace(self, max_grad_norm=float(max_grad_norm))
        check_contract(found.clipping, found.max_group_norm, found.num_groups, found.dtypes)
        return found

    @property
    def num_groups(self) -> int:
        """K."""
        return len(self.group_names)

    @property
    def max_group_norm(self) -> float:
        """R / sqrt(K), the bound of each group."""
        return self.max_grad_norm / math.sqrt(self.num_groups)

    @property
    def unit(self) -> float:
        """What weights are computed in: a power of two near R where R is far from 1, so that no product underflows."""
        exponent = math.frexp(self.max_grad_norm)[1]
        return math.ldexp(1.0, exponent) if abs(exponent) > FAR_EXPONENT else 1.0

    @property
    def sensitivity(self) -> float:
        """The largest norm of what one sample contributes, over all groups, as it is computed.

        In real numbers that is R. A computed norm may be less than the true one by a share of `certified.DELTA`, and
        the sum over samples is rounded.
        """
        exact = math.sqrt(self.num_groups) * self.clipping.bound(self.max_group_norm)
        return exact * (1 + DELTA + self.sums.rounding)


def define_mechanism(
    model: nn.Module,
    *,
    mode: Mode,
    also_train: str | Sequence[str],
    grouping: Grouping,
    clipping: str | ClippingFunction,
    max_grad_norm: float,
    loss_reduction: LossReduction,
    sums: Sums,
) -> Mechanism:
    """Check the arguments of `dp_compile` and resolve them against the model's parameters; changes nothing.

    Raises:
        ArgumentError: an argument is not usable for this model.
    """
    require_choice("mode", mode, get_args(Mode), why="it says what is trained")
    require_choice("loss_reduction", loss_reduction, get_args(LossReduction), why="a mean is undone before clipping")
    check_sums(sums)
    patterns = [also_train] if isinstance(also_train, str) else also_train
    if not (isinstance(patterns, Sequence) and all(isinstance(pattern, str) for pattern in patterns)):
        raise ArgumentError(
            f"also_train is {also_train!r}",
            why="it names parameters to train besides those of the mode",
            fix="give patterns of names, such as ('classifier.*',)",
        )
    trained = _select(model, mode, patterns)
    check_memory(model, trained)
    names, group_of = _group(trained, grouping)
    function = find_clipping(clipping)
    dtypes = {torch.promote_types(model.get_parameter(name).dtype, torch.float32) for name in trained}
    unbounded = Mechanism(mode, trained, group_of, names, function, 1.0, loss_reduction, sums, frozenset(dtypes))
    return unbounded.with_bound(max_grad_norm)


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is trained in mode "bitfit"."""
    return BIAS.search(name.rpartition(".")[2]) is not None


def _select(model: nn.Module, mode: Mode, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the trained parameters; a parameter with several names counts under each of them."""
    every = list(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name, _ in every):
            raise ArgumentError(
                f"also_train pattern {pattern!r} matches no parameter",
                why="a parameter that is meant to be trained would stay as it is in silence",
                fix=f"the model's parameters are called like {every[0][0]!r}"
                if every
                else "the model has no parameters",
            )
    chosen = {
        id(parameter)
        for name, parameter in every
        if (_trains(mode, name) and _is_free(mode, parameter))
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    for name, parameter in every:
        if id(parameter) in chosen and parameter.dtype.is_complex:
            raise ArgumentError(
                f"parameter {name!r} is complex",
                why="its norm and its clipping are not defined here, and it would stay as it is in silence",
                fix="hold it as a real parameter of pairs [..., 2], and take torch.view_as_complex of it in forward",
            )
    trained = tuple(n for n, p in model.named_parameters() if id(p) in chosen and p.dtype.is_floating_point)
    if not trained:
        frozen = [name for name, _ in every if _trains(mode, name)]
        raise ArgumentError(
            f"mode {mode!r} trains no parameter of this {type(model).__name__}",
            why="the model would be called private and never learn",
            fix=f"{frozen[0]!r} and its like came with requires_grad=False, and stay so: set it to True, or name them "
            "in also_train"
            if frozen
            else 'choose mode="full", name parameters in also_train, or pass add_biases=True to give layers a bias',
        )
    return trained


def _trains(mode: Mode, name: str) -> bool:
    """Whether a mode trains a parameter of this name, if it is free."""
    return mode != "bitfit" or is_bias(name)


def _is_free(mode: Mode, parameter: nn.Parameter) -> bool:
    """Whether a parameter is not frozen; by its author, unless the mode asks for what requires grad now."""
    return parameter.requires_grad if mode == "trainable" else required_by_author(parameter)


def _group(trained: tuple[str, ...], grouping: Grouping) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the groups, and the group of each parameter."""
    match grouping:
        case "flat":
            keys = dict.fromkeys(trained, "all")
        case "per-layer":
            keys = {name: name.rpartition(".")[0] for name in trained}
        case "per-param":
            keys = {name: name for name in trained}
        case Mapping():
            keys = {name: _match_group(name, grouping) for name in trained}
        case _:
            raise ArgumentError(
                f"grouping is {grouping!r}",
                why="each group is clipped by itself",
                fix="choose 'flat', 'per-layer' or 'per-param', or give a mapping of group names to name patterns",
            )
    names = tuple(dict.fromkeys(keys.values()))
    return names, {name: names.index(key) for name, key in keys.items()}


def _match_group(name: str, grouping: Mapping[str, str | Sequence[str]]) -> str:
    matches = [
        group
        for group, patterns in grouping.items()
        if any(fnmatch.fnmatchcase(name, p) for p in ([patterns] if isinstance(patterns, str) else patterns))
    ]
    if len(matches) != 1:
        found = f"is in the groups {matches}" if matches else "is in no group"
        raise ArgumentError(
            f"parameter {name!r} {found}",
            why=NOT_CLIPPED,
            fix="let the patterns of exactly one group match it; a last group with '*' takes no rest by itself",
        )
    return matches[0]
