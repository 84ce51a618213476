"""Gaussian noise on the way into an optimizer."""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import TensorWeakRef

from dpgraph.errors import ArgumentError, Place
from dpgraph.privacy.entropy import entropy_generator
from dpgraph.privacy.validation import require_non_negative, require_positive

__all__ = ["GaussianNoise", "add_noise_on_step"]

NOISED_OPTIMIZERS: WeakSet[torch.optim.Optimizer] = WeakSet()


def add_noise_on_step(
    optimizer: torch.optim.Optimizer,
    *,
    noise_multiplier: float,
    sensitivity: float,
    expected_batch_size: float,
    generator: torch.Generator | None = None,
) -> "GaussianNoise":
    """Make each `optimizer.step()` see noisy means instead of sums of clipped gradients.

    Before the step, every trained parameter's gradient g becomes (g + z) / expected_batch_size with z drawn from
    N(0, (noise_multiplier * sensitivity)^2) for each element.

    Formal guarantee: if one record changes the gradients of all parameters of the optimizer together by at most
    `sensitivity` in Euclidean norm, a step is the Gaussian mechanism with this noise multiplier, and what the
    optimizer makes of it is post-processing.

    Args:
        optimizer: any optimizer whose `step` takes no closure. It gets one noise at a time.
        noise_multiplier: sigma, finite and at least 0; 0 adds none and gives no privacy.
        sensitivity: the largest norm of what one record adds, `DPModule.sensitivity`.
        expected_batch_size: in records, a constant (not the size of the batch drawn, which is private).
        generator: source of the noise, for reproducible runs. By default one per device, seeded with the operating
            system's entropy. A generator whose seed is known gives no privacy against those who know it.

    Returns:
        The hook, with `num_steps` and `remove()`.

    Raises:
        ArgumentError: an argument is outside its range, or the optimizer has noise already. The step itself raises it
            for what would go past the noise: see `GaussianNoise`.

    Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> noise = add_noise_on_step(optimizer, noise_multiplier=0.0, sensitivity=1.0, expected_batch_size=4.0)
    >>> weight.grad = torch.tensor([4.0, 8.0])
    >>> optimizer.step()
    >>> weight.tolist(), noise.num_steps
    ([-1.0, -2.0], 1)
    """
    require_non_negative("noise_multiplier", noise_multiplier, why="it scales the noise that hides a record")
    require_positive("sensitivity", sensitivity, why="the noise must be as large as what it hides")
    require_positive("expected_batch_size", expected_batch_size, why="the noisy sum is divided by it")
    if optimizer in NOISED_OPTIMIZERS:
        raise ArgumentError(
            "the optimizer has noise already",
            why="noise added twice is not the noise that the accountant counts",
            fix="call remove() on the first one, or make a new optimizer",
        )
    return GaussianNoise(optimizer, noise_multiplier * sensitivity, expected_batch_size, generator)


class GaussianNoise:
    """The hook that `add_noise_on_step` puts on an optimizer.

    Edge cases of a step:

    | gradient of a parameter | what happens |
    | --- | --- |
    | of a trained parameter, None or zero (an empty batch) | taken as zero: pure noise, and the step counts |
    | of a frozen parameter, None | left alone |
    | of a frozen parameter, not None | ArgumentError: the optimizer would step with it, without noise |
    | the tensor that the last step left (no `zero_grad()`) | ArgumentError: it is noisy and divided already |
    | complex | ArgumentError |
    | float16 or bfloat16 | noise is drawn and added in float32, then rounded |
    | sparse | made dense: which rows are there would tell |

    A `step(closure)` is refused, for the closure makes new gradients after the noise. Copies and pickles of the
    optimizer do not carry hooks: they have no noise. The noise is floating-point noise, with the limits that
    Mironov 2012 ("On significance of the least significant bits for differential privacy") describes.

    Attributes:
        scale: standard deviation of the noise, noise_multiplier * sensitivity.
        expected_batch_size: what the noisy sums are divided by.
        num_steps: noisy steps so far; the accountant wants it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scale: float,
        expected_batch_size: float,
        generator: torch.Generator | None,
    ) -> None:
        self.scale = scale
        self.expected_batch_size = expected_batch_size
        self.num_steps = 0
        self._generator = generator
        self._entropy: dict[torch.device, torch.Generator] = {}
        self._noisy: dict[nn.Parameter, TensorWeakRef] = {}
        self._optimizer = ref(optimizer)
        self._registration: RemovableHandle | None = optimizer.register_step_pre_hook(self._before_step)
        NOISED_OPTIMIZERS.add(optimizer)

    def remove(self) -> None:
        """Take the noise off the optimizer; its steps are then those of PyTorch. Removing twice does nothing more."""
        optimizer = self._optimizer()
        if optimizer is not None and self._registration is not None:
            NOISED_OPTIMIZERS.discard(optimizer)
            self._registration.remove()
            self._registration = None

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _refuse_closure(args, kwargs)
        parameters = list(_parameters(optimizer))
        # all checks first: an error must leave every gradient as it was
        for name, parameter in parameters:
            self._check(name, parameter)
        self._noisy.clear()
        for _, parameter in parameters:
            if parameter.requires_grad:
                parameter.grad = self._noisy_mean(parameter)
                self._noisy[parameter] = TensorWeakRef(parameter.grad)
        self.num_steps += 1

    def _check(self, name: str, parameter: nn.Parameter) -> None:
        place = Place(parameter=name)
        if parameter.is_complex() and parameter.requires_grad:
            raise ArgumentError(
                "a trained parameter is complex",
                place=place,
                why="sensitivity and noise are those of real numbers",
                fix="train its real view (torch.view_as_real) instead",
            )
        if parameter.grad is None:
            return
        if not parameter.requires_grad:
            raise ArgumentError(
                "a frozen parameter has a gradient",
                place=place,
                why="the optimizer would step with it as it is, without clipping or noise",
                fix="set its grad to None, or give the optimizer the trained parameters alone",
            )
        if parameter in self._noisy and self._noisy[parameter]() is parameter.grad:
            raise ArgumentError(
                "a gradient is still the one of the step before",
                place=place,
                why="it holds that step's noise and is divided already; both would happen twice",
                fix="call optimizer.zero_grad() (which sets gradients to None by default) after each step",
            )

    def _noisy_mean(self, parameter: Tensor) -> Tensor:
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        generator = self._generator or self._entropy_on(parameter.device)
        total = torch.randn(parameter.shape, dtype=dtype, device=generator.device, generator=generator)
        total = total.mul_(self.scale).to(parameter.device)
        if parameter.grad is not None:
            total += parameter.grad.to_dense() if parameter.grad.layout != torch.strided else parameter.grad
        return (total / self.expected_batch_size).to(parameter.dtype)

    def _entropy_on(self, device: torch.device) -> torch.Generator:
        if device not in self._entropy:
            self._entropy[device] = entropy_generator(device)
        return self._entropy[device]


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """The optimizer's parameters, with the names that it has for them or their places."""
    for g, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"param_groups[{g}]['params'][{i}]" for i in range(len(group["params"]))]
        yield from zip(names, group["params"], strict=True)


def _refuse_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    # args[0] is the optimizer itself
    if any(value is not None for value in (*args[1:], *kwargs.values())):
        raise ArgumentError(
            "the optimizer's step was called with a closure",
            why="the closure would compute new gradients after the noise was added, and the step would use those",
            fix="run forward and backward before optimizer.step(), without a closure",
        )
