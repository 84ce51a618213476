"""Compile a model, train it for one step, and hold every gradient against the loop over the samples."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, DPModule, dp_compile
from tests.oracle import PerSampleGradients, group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors

__all__ = ["EAGER", "INDUCTOR", "check_exact", "compare", "in_plain_layout", "measure_exactness", "squares"]

EAGER, INDUCTOR = CompileOptions(backend="eager"), CompileOptions(backend="inductor")

LossOf = Callable[[Tensor], Tensor]


def squares(y: Tensor) -> Tensor:
    """A loss [B] of outputs [B, ...] that uses each of them in another way."""
    flat = y.flatten(1) if y.ndim > 1 else y[:, None]
    weights = torch.linspace(0.5, 1.5, flat.shape[1], dtype=y.dtype)
    return (weights * (flat + 0.3).square()).sum(1)


def check_exact(model: nn.Module, *args: Any, **arguments: Any) -> DPModule:
    """`measure_exactness`, of which only what `dp_compile` made of the model is of interest."""
    return measure_exactness(model, *args, **arguments)[0]


def measure_exactness(
    model: nn.Module,
    *args: Any,
    mode: str = "full",
    clipping: str = "auto-s",
    grouping: str = "flat",
    max_grad_norm: float = 1.0,
    tolerance: float = 1e-10,
    batch_dims: int | Mapping[str, int | None] | None = None,
    loss: LossOf = squares,
    output_axis: int = 0,
    module: DPModule | None = None,
    **arguments: Any,
) -> tuple[DPModule, float]:
    """Gradients and norms of one step, each within `tolerance`; `p.grad` must be there for every trained parameter.

    Args:
        model: in float64, unless `tolerance` says otherwise.
        args: positional arguments of the model; the batch is axis 0 of tensors, or as `batch_dims` says, an int for
            all or a list with the axis of each.
        module: what `dp_compile` made of the model before, to run again.
        output_axis: the batch axis of the output.
        arguments: further ones of `dp_compile`.

    Returns:
        The module and the largest relative error of a parameter's gradient.
    """
    names = list(range(len(args)))
    axes = batch_dims if isinstance(batch_dims, list) else [batch_dims or 0 for _ in names]
    num_samples = next(x.shape[a] for x, a in zip(args, axes, strict=True) if a is not None)
    if module is None:
        options = arguments.pop("options", EAGER)
        passed = None if isinstance(batch_dims, list) else batch_dims
        passed = arguments.pop("named_batch_dims", passed)
        module = dp_compile(
            model,
            mode,
            clipping=clipping,
            grouping=grouping,
            max_grad_norm=max_grad_norm,
            batch_dims=passed,
            options=options,
            **arguments,
        )
    twin = in_plain_layout(copy.deepcopy(model).double())
    for p in model.parameters():
        p.grad = None
    outputs = module(*args).movedim(output_axis, 0)
    assert len(outputs) == num_samples
    loss(outputs).sum().backward()

    def loss_of(oracle: nn.Module, b: int) -> Tensor:
        alone = [
            _double(x.narrow(a, b, 1).contiguous() if a is not None else x) for x, a in zip(args, axes, strict=True)
        ]
        return loss(oracle(*alone).movedim(output_axis, 0)).sum()

    samples = per_sample_gradients(twin, loss_of, num_samples)
    return module, compare(model, module.grad_norms, samples, grouping, clipping, max_grad_norm, tolerance)


def compare(
    model: nn.Module,
    grad_norms: Tensor,
    samples: PerSampleGradients,
    grouping: str,
    clipping: str,
    max_grad_norm: float,
    tolerance: float = 1e-10,
) -> float:
    """The largest relative error of the gradients that a model has against those of the loop.

    Args:
        model: after the backward.
        grad_norms: norms [B] or [B, K] that dpgraph reports.
        samples: the gradients of each sample.
        grouping, clipping, max_grad_norm: the mechanism.
        tolerance: of gradients and norms.
    """
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    missing = [name for name in trained if model.get_parameter(name).grad is None]
    assert trained
    assert not missing, f"no gradient: {missing}"
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    groups = group_names(trained, grouping)
    _check_norms(grad_norms, samples.norms(groups), tolerance)
    found = {name: model.get_parameter(name).grad for name in trained}
    how = (groups, clipping, max_grad_norm)
    errors = relative_errors(found, samples.clipped_sum(*how), whole_of=samples.whole_norms(*how))
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not wrong, wrong
    return max(errors.values())


def in_plain_layout(model: nn.Module) -> nn.Module:
    """Torch gives wrong gradients of single images in channels-last layout, of a convolution with groups for one."""
    for p in model.parameters():
        p.data = p.data.contiguous()
    return model


def _double(x: Tensor) -> Tensor:
    return x.double() if x.dtype.is_floating_point else x


def _check_norms(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Squares are compared: it is those that are sums, of terms as large as the largest norm, and rounded."""
    if expected.numel():
        rounding = 16 * torch.finfo(found.dtype).eps * float(expected.square().max())
        squares_found = found.double().reshape(expected.shape).square()
        torch.testing.assert_close(squares_found, expected.square(), rtol=2 * tolerance, atol=rounding)
