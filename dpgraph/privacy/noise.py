"""Gaussian noise on the way into an optimizer."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet, ref

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from dpgraph.checks import require_non_negative, require_positive
from dpgraph.deliveries import record_of
from dpgraph.errors import ArgumentError
from dpgraph.privacy.entropy import entropy_generator
from dpgraph.privacy.stepping import are_private, check_gradients, delivered_sensitivity, named_parameters, repeats

__all__ = ["GaussianNoise", "add_noise_on_step"]

NOISED_OPTIMIZERS: WeakSet[torch.optim.Optimizer] = WeakSet()


@runtime_checkable
class HasSensitivity(Protocol):
    """What says how much one record adds at most: a `DPModule`."""

    @property
    def sensitivity(self) -> float:
        """In Euclidean norm, over all parameters."""


def add_noise_on_step(
    optimizer: torch.optim.Optimizer,
    *,
    noise_multiplier: float,
    sensitivity: float | HasSensitivity,
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
        sensitivity: the largest norm of what one record adds, `DPModule.sensitivity`; or the module itself, whose
            sensitivity may change with its `max_grad_norm`: the noise of a step is that of the largest delivered.
        expected_batch_size: in records, a constant (not the size of the batch drawn, which is private).
        generator: source of the noise, for reproducible runs. By default one per device, seeded with the operating
            system's entropy. A generator whose seed is known gives no privacy against those who know it.

    Returns:
        The hook, with `num_steps` and `remove()`.

    Raises:
        ArgumentError: an argument is outside its range, or the optimizer has noise already. The step itself raises it
            for what would go past the noise: see `GaussianNoise`.

    Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> noise = add_noise_on_step(optimizer, noise_multiplier=0.0, sensitivity=1.0, expected_batch_size=4.0)
    >>> weight.grad = torch.tensor([4.0, 8.0])
    >>> optimizer.step()
    >>> weight.tolist(), noise.num_steps
    ([-1.0, -2.0], 1)
    """
    require_non_negative("noise_multiplier", noise_multiplier, why="it scales the noise that hides a record")
    known = sensitivity.sensitivity if isinstance(sensitivity, HasSensitivity) else sensitivity
    require_positive("sensitivity", known, why="the noise must be as large as what it hides")
    require_positive("expected_batch_size", expected_batch_size, why="the noisy sum is divided by it")
    if optimizer in NOISED_OPTIMIZERS:
        raise ArgumentError(
            "the optimizer has noise already",
            why="noise added twice is not the noise that the accountant counts",
            fix="call remove() on the first one, or make a new optimizer",
        )
    return GaussianNoise(optimizer, noise_multiplier, sensitivity, expected_batch_size, generator)


class GaussianNoise:
    """The hook that `add_noise_on_step` puts on an optimizer.

    Edge cases of a step:

    | gradient of a parameter | what happens |
    | --- | --- |
    | of a trained parameter, None or zero (an empty batch) | taken as zero: pure noise, and the step counts |
    | of a frozen parameter, None | left alone |
    | of a frozen parameter, not None | ArgumentError: the optimizer would step with it, without noise |
    | the tensor that the last step left (no `zero_grad()`) | ArgumentError: it is noisy and divided already |
    | not delivered by private graphs, once a private module trains any of the optimizer's | ArgumentError |
    | of zeros, wherever it is from | taken as zero |
    | complex | ArgumentError |
    | float16 or bfloat16 | noise is drawn and added in float32, then rounded |
    | sparse | made dense: which rows are there would tell |

    Once a private module trains some of the optimizer's parameters, gradients must be those that `loss.backward()`
    through it left in `p.grad`; editing them in place (`clip_grad_norm_`) is up to you. If it trains none of them, and
    none has a gradient while those of the module wait, the step is refused. A step that calls the step of its base
    class is one step.

    A `step(closure)` is refused, for the closure makes new gradients after the noise. Copies and pickles of the
    optimizer do not carry hooks: they have no noise. The noise is floating-point noise, with the limits that
    Mironov 2012 ("On significance of the least significant bits for differential privacy") describes.

    Attributes:
        noise_multiplier: sigma.
        expected_batch_size: what the noisy sums are divided by.
        num_steps: noisy steps so far; the accountant wants it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        sensitivity: float | HasSensitivity,
        expected_batch_size: float,
        generator: torch.Generator | None,
    ) -> None:
        self.noise_multiplier = noise_multiplier
        self._sensitivity = sensitivity
        self.expected_batch_size = expected_batch_size
        self.num_steps = 0
        self._generator = generator
        self._entropy: dict[torch.device, torch.Generator] = {}
        self._is_private = are_private(list(named_parameters(optimizer)))  # and stays so
        self._depth = 0  # how many steps of the optimizer's classes are under way
        self._optimizer = ref(optimizer)
        self._registrations: tuple[RemovableHandle, ...] = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )
        NOISED_OPTIMIZERS.add(optimizer)

    @property
    def sensitivity(self) -> float:
        """What one record adds at most, as things stand."""
        given = self._sensitivity
        return given.sensitivity if isinstance(given, HasSensitivity) else given

    @property
    def scale(self) -> float:
        """Standard deviation of the noise, noise_multiplier * sensitivity."""
        return self.noise_multiplier * self.sensitivity

    def remove(self) -> None:
        """Take the noise off the optimizer; its steps are then those of PyTorch. Removing twice does nothing more."""
        optimizer = self._optimizer()
        if optimizer is not None and self._registrations:
            NOISED_OPTIMIZERS.discard(optimizer)
            for registration in self._registrations:
                registration.remove()
            self._registrations = ()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _refuse_closure(args, kwargs)
        parameters = list(named_parameters(optimizer))
        if self._depth > 0 and repeats(parameters):  # a step that calls the step of its base class
            self._depth += 1
            return
        # all checks first: an error must leave every gradient as it was
        self._is_private = self._is_private or are_private(parameters)
        sensitivity = self.sensitivity
        if isinstance(self._sensitivity, HasSensitivity):
            sensitivity = max(sensitivity, delivered_sensitivity(parameters))
        check_gradients(parameters, only_delivered=self._is_private, sensitivity=sensitivity)
        for _, parameter in parameters:
            if parameter.requires_grad:
                parameter.grad = self._noisy_mean(parameter, self.noise_multiplier * sensitivity)
                record_of(parameter).note_noise(parameter.grad)
        self.num_steps += 1
        self._depth = 1

    def _after_step(self, *_: Any) -> None:
        self._depth = max(self._depth - 1, 0)

    def _noisy_mean(self, parameter: Tensor, scale: float) -> Tensor:
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        generator = self._generator or self._entropy_on(parameter.device)
        total = torch.randn(parameter.shape, dtype=dtype, device=generator.device, generator=generator)
        total = total.mul_(scale).to(parameter.device)
        if parameter.grad is not None:
            total += parameter.grad.to_dense() if parameter.grad.layout != torch.strided else parameter.grad
        return (total / self.expected_batch_size).to(parameter.dtype)

    def _entropy_on(self, device: torch.device) -> torch.Generator:
        if device not in self._entropy:
            self._entropy[device] = entropy_generator(device)
        return self._entropy[device]


def _refuse_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    # args[0] is the optimizer itself
    if any(value is not None for value in (*args[1:], *kwargs.values())):
        raise ArgumentError(
            "the optimizer's step was called with a closure",
            why="the closure would compute new gradients after the noise was added, and the step would use those",
            fix="run forward and backward before optimizer.step(), without a closure",
        )
