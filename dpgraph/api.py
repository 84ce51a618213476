"""The call that makes a model privately trainable."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.batch import BatchDims, check_batch_dims
from dpgraph.checks import require_flag
from dpgraph.clipping import ClippingFunction
from dpgraph.lower.calls import Calls
from dpgraph.lower.module import DPModule
from dpgraph.lower.probed import LossFunction
from dpgraph.lower.reversible import ReversibleChange
from dpgraph.mechanism import Grouping, LossReduction, Mode, define_mechanism
from dpgraph.model_checks import check_loss, check_model, check_reparametrised
from dpgraph.options import CompileOptions, check_options
from dpgraph.sums import Sums

__all__ = ["dp_compile"]


def dp_compile(
    model: nn.Module,
    mode: Mode = "bitfit",
    *,
    clipping: str | ClippingFunction = "auto-s",
    max_grad_norm: float = 1.0,
    grouping: Grouping = "flat",
    also_train: str | Sequence[str] = (),
    add_biases: bool = False,
    loss_fn: LossFunction | None = None,
    loss_reduction: LossReduction = "sum",
    max_samples: int = 1024,
    max_parts: int = 16,
    batch_dims: BatchDims = None,
    example_inputs: tuple[Any, ...] | Mapping[str, Any] | None = None,
    options: CompileOptions | None = None,
) -> DPModule:
    """Make a model's backward compute sums of clipped per-sample gradients.

    Args:
        model: any module that `torch.compile(model, fullgraph=True)` accepts. Its parameters are shared, not copied;
            those that are not trained are set to `requires_grad=False`.
        mode: "bitfit" trains all biases, "full" every parameter, both without those that came with
            `requires_grad=False`; "trainable" whatever requires grad now. What an earlier `dp_compile` of the same
            parameters froze does not count as such: one phase of training may follow another.
        clipping: "auto-s" R/(n + 0.01), "auto-v" R/n, "abadi" min(1, R/n), or a `ClippingFunction`.
        max_grad_norm: R, the bound on a sample's contribution over all groups.
        grouping: "flat", "per-layer", "per-param", or group names with name patterns; K groups get R/sqrt(K) each.
        also_train: name patterns (as in `fnmatch`) of parameters to train besides those of the mode, frozen or not.
        add_biases: give layers that have none a bias of zeros first.
        loss_fn: `loss_fn(outputs, *targets) -> [B]` is compiled with the model; then the module returns it.
        loss_reduction: "mean" if the loss is divided by the number of samples, which is undone before clipping.
        max_samples: how many samples are added up between two steps of the optimizer at most; the sensitivity covers
            the rounding of so many, and a step with noise refuses more.
        max_parts: in how many backwards, at most.
        batch_dims: the batch axis of the inputs (an int, or by argument name, None for inputs that samples share);
            by default axis 0 of every tensor.
        example_inputs: arguments of a call to capture the model with at once (a tuple, or a mapping of keywords, in
            which "targets" goes to `loss_fn`).
        options: speed and memory; no result depends on them.

    Returns:
        A module to use in the place of the model.

    Raises:
        ArgumentError: an argument is not usable for this model.
        CaptureError, UnsoundProgramError, UnsupportedProgramError: the program was refused; from here if
            `example_inputs` are given, else from the first call in grad mode. The model is as it was.

    Sources: Bu et al. 2023 (arXiv:2206.07136) for automatic clipping, Bu et al. 2024 (arXiv:2210.00036) for BiTFiT.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> private = dp_compile(model, mode="full", options=CompileOptions(backend="eager"))
    >>> private(torch.ones(4, 3)).sum().backward()
    >>> private.grad_norms.shape, model.weight.grad.shape
    (torch.Size([4]), torch.Size([2, 3]))
    """
    example = None if example_inputs is None else Arguments.of_call(example_inputs)
    check_model(model)
    check_loss(model, loss_fn)
    check_batch_dims(batch_dims)
    require_flag("add_biases", add_biases, why="it decides whether layers get parameters that they had not")
    chosen = check_options(options)
    change = ReversibleChange.add_biases(model) if add_biases else ReversibleChange.none(model)
    try:
        mechanism = define_mechanism(
            model,
            mode=mode,
            also_train=also_train,
            grouping=grouping,
            clipping=clipping,
            max_grad_norm=max_grad_norm,
            loss_reduction=loss_reduction,
            sums=Sums(max_samples, max_parts),
        )
        check_reparametrised(model, mechanism.trained)
        change.train_only(model, mechanism.trained)
        calls = Calls(model, mechanism, chosen, loss_fn=loss_fn, batch_dims=batch_dims, change=change)
        module = DPModule(model, calls)
    except Exception:
        change.undo()
        raise
    if example is not None:
        module(*example.args, **example.kwargs)
    return module
