"""What an optimizer's step with noise may use: gradients that private graphs delivered, once."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dpgraph.deliveries import Origin, first_nonzero, is_guarded, origin, pending, record_of
from dpgraph.errors import ArgumentError, Place

__all__ = ["are_private", "check_gradients", "delivered_sensitivity", "named_parameters", "repeats"]

Named = Sequence[tuple[str, nn.Parameter]]


def named_parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """The optimizer's parameters, with the names that it has for them or their places."""
    for g, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"param_groups[{g}]['params'][{i}]" for i in range(len(group["params"]))]
        yield from zip(names, group["params"], strict=True)


def repeats(parameters: Named) -> bool:
    """Whether all trained parameters hold what a noisy step left, as it left it: nothing that still needs noise."""
    trained = [p for _, p in parameters if p.requires_grad]
    return bool(trained) and all(origin(p) is Origin.STALE for p in trained)


def are_private(parameters: Named) -> bool:
    """Whether a private module trains one of the parameters, or has left a gradient in it."""
    return any(is_guarded(p) or origin(p) is Origin.DELIVERED for _, p in parameters)


def delivered_sensitivity(parameters: Named) -> float:
    """The largest that private graphs delivered the parameters' gradients with, 0 if there are none."""
    return max((record_of(p).sensitivity for _, p in parameters if origin(p) is Origin.DELIVERED), default=0.0)


def check_gradients(parameters: Named, *, only_delivered: bool, sensitivity: float) -> None:
    """Pass if every gradient may be noised and stepped with; nothing is changed.

    Args:
        parameters: the optimizer's.
        only_delivered: whether all gradients must be from private graphs.
        sensitivity: what the noise is scaled to.

    Raises:
        ArgumentError: one may not be stepped with, by name.
    """
    unsure: list[tuple[str, nn.Parameter]] = []
    for name, p in parameters:
        _check_parameter(name, p)
        where = origin(p)
        if where is Origin.DELIVERED:
            _check_sums(name, p)
            _check_sensitivity(name, p, sensitivity)
        if where is Origin.STALE:
            raise _stale(name)
        if where is Origin.REWRITTEN or (where is Origin.FOREIGN and only_delivered):
            unsure.append((name, p))
    first = first_nonzero([p.grad for _, p in unsure if p.grad is not None])
    if first is not None:
        name, p = unsure[first]
        raise _stale(name) if origin(p) is Origin.REWRITTEN else _foreign(name)
    trains = any(is_guarded(p) and p.requires_grad for _, p in parameters)
    if not trains and all(p.grad is None for _, p in parameters) and pending():
        raise ArgumentError(
            "the optimizer holds none of the parameters that the private module trains",
            why="gradients were computed, and the samples in them accounted for, but this step uses none of them",
            fix="make the optimizer of module.parameters(), after dp_compile and after whatever replaces parameters",
        )


def _check_parameter(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_complex() and parameter.requires_grad:
        raise ArgumentError(
            "a trained parameter is complex",
            place=Place(parameter=name),
            why="sensitivity and noise are those of real numbers",
            fix="train its real view (torch.view_as_real) instead",
        )
    if parameter.grad is not None and not parameter.requires_grad:
        raise ArgumentError(
            "a frozen parameter has a gradient",
            place=Place(parameter=name),
            why="the optimizer would step with it as it is, without clipping or noise",
            fix="set its grad to None, or give the optimizer the trained parameters alone",
        )


def _check_sums(name: str, parameter: nn.Parameter) -> None:
    record = record_of(parameter)
    sums = record.sums
    if record.num_samples > sums.max_samples or record.num_parts > sums.max_parts:
        raise ArgumentError(
            f"{record.num_samples} samples in {record.num_parts} backward{'s' * (record.num_parts > 1)} were added up; "
            f"the sensitivity covers {sums.max_samples} (max_samples) in {sums.max_parts} (max_parts)",
            place=Place(parameter=name),
            why="the larger a sum, the more rounding moves it when one sample comes or goes, and noise must hide that",
            fix="give dp_compile the largest numbers there can be between two steps, public ones, as max_samples= and "
            "max_parts=, and that module's sensitivity to the noise; zero_grad() what was added up for another purpose",
        )


def _check_sensitivity(name: str, parameter: nn.Parameter, covered: float) -> None:
    delivered = record_of(parameter).sensitivity
    if delivered > covered:
        raise ArgumentError(
            f"the noise is scaled to a sensitivity of {covered:.6g}, and the gradients have one of {delivered:.6g}",
            place=Place(parameter=name),
            why="less noise than the mechanism's bound asks for hides a record less than the accountant says",
            fix="give add_noise_on_step sensitivity=model.sensitivity; if the bound changes between steps, "
            "sensitivity=model, which it follows",
        )


def _stale(name: str) -> ArgumentError:
    return ArgumentError(
        "a gradient is still the one of the step before",
        place=Place(parameter=name),
        why="it holds that step's noise and is divided already; both would happen twice",
        fix="call optimizer.zero_grad() (which sets gradients to None by default) after each step",
    )


def _foreign(name: str) -> ArgumentError:
    return ArgumentError(
        "a gradient did not come from a private graph, or not all of it",
        place=Place(parameter=name),
        why="it is not known to be clipped, and the noise is scaled to clipped gradients",
        fix="compute losses with the module that dp_compile returned, in grad mode: not with parts of it or with the "
        "model given; change p.grad in place and don't assign to it; give parameters outside the module, and those of "
        "a model trained without privacy, an optimizer of their own",
    )
