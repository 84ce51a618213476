"""Changes of the user's model that can be taken back."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from dpgraph.errors import ArgumentError
from dpgraph.freezing import required_by_author, set_requires_grad

__all__ = ["ReversibleChange"]


@dataclass(frozen=True, slots=True)
class ReversibleChange:
    """What `dp_compile` changed in a model: which parameters require grad, and biases that it added.

    Attributes:
        required_grad: every parameter with its flag from before, and with its author's.
        added: modules that were given a bias, with it.
    """

    required_grad: tuple[tuple[nn.Parameter, bool, bool], ...]
    added: tuple[tuple[nn.Module, nn.Parameter], ...]

    @classmethod
    def add_biases(cls, model: nn.Module) -> "ReversibleChange":
        """Give a bias of zeros to every module that has the place for one and none in it (BiTFiT-Add).

        Source: Bu et al. 2024, arXiv:2210.00036, section 4.
        """
        before = cls.none(model).required_grad
        added = tuple((module, bias) for module in model.modules() if (bias := _missing_bias(module)) is not None)
        for module, bias in added:
            module.register_parameter("bias", bias)
        return cls(before, added)

    @classmethod
    def none(cls, model: nn.Module) -> "ReversibleChange":
        """Nothing was changed yet."""
        return cls(tuple((p, p.requires_grad, required_by_author(p)) for p in model.parameters()), ())

    def train_only(self, model: nn.Module, trained: Iterable[str]) -> None:
        """Let the trained parameters alone require grad."""
        names = set(trained)
        for name, parameter in model.named_parameters():
            set_requires_grad(parameter, name in names)

    def remember(self) -> None:
        """Tell whose the flags are of parameters that were copied, or loaded, together with this."""
        for parameter, _, authored in self.required_grad:
            set_requires_grad(parameter, parameter.requires_grad, authored=authored)

    def undo(self) -> None:
        """The model as it was."""
        for module, _ in self.added:
            module.register_parameter("bias", None)
        for parameter, flag, _ in self.required_grad:
            set_requires_grad(parameter, flag)

    def redo(self, model: nn.Module, trained: Iterable[str]) -> None:
        """The model as it was before `undo`, with the very biases that were added.

        Raises:
            ArgumentError: somebody has frozen or unfrozen a parameter since.
        """
        for parameter, flag, _ in self.required_grad:
            if parameter.requires_grad != flag:
                raise ArgumentError(
                    "a parameter was frozen or unfrozen after a first call that failed",
                    why="what is trained was fixed by dp_compile, and the model was given back as it had been before",
                    fix="call dp_compile again, with what shall be trained now",
                )
        for module, bias in self.added:
            bias.data = bias.data.to(module.get_parameter("weight"))  # the model may have been moved or cast since
            module.register_parameter("bias", bias)
        self.train_only(model, trained)


def _missing_bias(module: nn.Module) -> nn.Parameter | None:
    """Zeros in the place that a module has for a bias, if it has one and a weight along whose axes a bias lies."""
    weight = module._parameters.get("weight")
    if weight is None or "bias" not in module._parameters or module._parameters["bias"] is not None:
        return None
    if weight.ndim == 0 or not (weight.is_floating_point() or weight.is_complex()):
        return None
    return nn.Parameter(torch.zeros(_bias_shape(module, weight), dtype=weight.dtype, device=weight.device))


def _bias_shape(module: nn.Module, weight: nn.Parameter) -> tuple[int, ...]:
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return (module.out_channels,)
    return tuple(weight.shape) if isinstance(module, nn.LayerNorm) else (weight.shape[0],)
