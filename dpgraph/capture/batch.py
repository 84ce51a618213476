"""Tell where the batch is in the arguments of a call, and pad one that has too few rows."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpgraph.capture.arguments import Arguments
from dpgraph.capture.containers import find_leaves
from dpgraph.errors import ArgumentError, UnsupportedProgramError
from dpgraph.torch_compat import FakeTensor

__all__ = ["SMALLEST_TRACED", "BatchDims", "BatchedCall", "check_batch_dims", "find_batch"]

BatchDims = int | Mapping[str, int | None] | None

# The tracer treats sizes 0 and 1 as constants; smaller batches are padded to this size.
SMALLEST_TRACED = 2

# A fake tensor stands for a plain one in a plan.
PLAIN = (Tensor, nn.Parameter, FakeTensor)


@dataclass(frozen=True, slots=True)
class BatchedCall:
    """The arguments of a call, with the batch found.

    Attributes:
        arguments: with batches of `num_rows` rows.
        dims: the batch axis of each tensor among them that has one, by the tensor's id.
        names: the argument that each tensor among them is, or is in, by the tensor's id.
        num_samples: B as the user gave it.
        num_rows: B with the padding.
    """

    arguments: Arguments
    dims: Mapping[int, int]
    names: Mapping[int, str]
    num_samples: int
    num_rows: int


def check_batch_dims(batch_dims: object) -> None:
    """Pass if `batch_dims` is of the type `BatchDims`.

    Raises:
        ArgumentError: it is not.
    """
    several = tuple(batch_dims.items()) if isinstance(batch_dims, Mapping) else ((None, batch_dims),)
    names_axes = all(
        (name is None or isinstance(name, str)) and (axis is None or (type(axis) is int)) for name, axis in several
    )
    if not names_axes:
        raise ArgumentError(
            f"batch_dims is {batch_dims!r}",
            why="the batch axis tells what one sample is, the unit of privacy",
            fix="pass an axis (an int) for all inputs, or {name: axis or None}, None for what all samples share",
        )


def find_batch(
    arguments: Arguments, signature: inspect.Signature, batch_dims: BatchDims, *, fixed_rows: int | None = None
) -> BatchedCall:
    """Find the batch axis of every tensor argument, and fill up what is smaller than it has to be.

    Args:
        arguments: of a call; they may hold tensors in nested containers.
        signature: of the model's forward, which gives them their names.
        batch_dims: the axis for all; or by argument name, None for an argument that all samples share; or None for
            axis 0 of every tensor that has axes.
        fixed_rows: how many rows every batch must have; None: as many as it comes with, of two or more.

    Raises:
        ArgumentError: the model takes other arguments, none has a batch axis, two disagree on the number of samples, or
            there are more samples than rows.
        UnsupportedProgramError: an argument is a tensor of another kind than torch.Tensor with all its elements, or an
            array of numpy's.
    """
    arguments.check_fit(signature)
    named = arguments.named(signature)
    if isinstance(batch_dims, Mapping):
        _check_names(batch_dims, [name for name, _ in named], signature)
    sizes: dict[str, int] = {}
    axes: dict[int, int | None] = {}
    own_names: dict[int, str] = {}
    for name, leaf in ((name, leaf) for name, value in named for leaf in find_leaves(value)):
        if not isinstance(leaf, Tensor):
            _check_no_array(name, leaf)
            continue
        _check_kind(name, leaf)
        own_names.setdefault(id(leaf), name)
        axis = _axis(name, leaf, batch_dims)
        if axes.setdefault(id(leaf), axis) != axis:
            raise ArgumentError(
                f"input {name!r} is the very tensor that is another input too, and batch_dims tells them apart",
                why="the batch axis tells what one sample is, the unit of privacy; a tensor has one such axis or none",
                fix=f"pass {name}.clone(), or the same axis for both",
            )
        if axis is not None:
            sizes[f"{name} {list(leaf.shape)}"] = leaf.shape[axis]
    if len(set(sizes.values())) != 1:
        raise ArgumentError(
            f"the inputs do not agree on the number of samples: {', '.join(sizes)}"
            if sizes
            else "no input has a batch",
            why="the batch axis tells what one sample is, the unit of privacy",
            fix="pass batch_dims: an axis for all inputs, or {name: axis or None}, None for what all samples share"
            if sizes
            else "pass a tensor with an axis of samples, to which no batch_dims gives None",
        )
    (num_samples,) = set(sizes.values())
    if fixed_rows is not None and num_samples > fixed_rows:
        raise ArgumentError(
            f"the batch has {num_samples} samples, and physical batches were fixed at {fixed_rows} by the first one",
            why='with CompileOptions(batch="fixed") smaller batches are filled up, and no larger one fits',
            fix="split it: gradients add up over calls; or let the first call, or example_inputs, be as large as any",
        )
    rows = max(num_samples, SMALLEST_TRACED, fixed_rows or 0)
    dims: dict[int, int] = {}
    names: dict[int, str] = {}

    def pad(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        axis = axes[id(x)]
        padded = x if axis is None else _laid_out(_padded(x, axis, rows), axis)
        names[id(padded)] = own_names[id(x)]
        if axis is not None:
            dims[id(padded)] = axis
        return padded

    return BatchedCall(arguments.map(pad), dims, names, num_samples, rows)


def _check_names(batch_dims: Mapping[str, int | None], passed: Sequence[str], signature: inspect.Signature) -> None:
    """An argument that this call leaves out is one all the same."""
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    optional = [name for name, p in signature.parameters.items() if p.kind not in any_number]
    names = list(dict.fromkeys([*passed, *optional]))
    unknown = [name for name in batch_dims if name not in names]
    if unknown:
        raise ArgumentError(
            f"batch_dims names {', '.join(map(repr, unknown))}, which this model does not take",
            why="the batch axis tells what one sample is, the unit of privacy",
            fix=f"the arguments are {', '.join(map(repr, names))}",
        )


def _check_kind(name: str, x: Tensor) -> None:
    if type(x) in PLAIN and x.layout is torch.strided:
        return
    kind = f"a tensor of layout {x.layout}" if type(x) in PLAIN else f"a {type(x).__name__}"
    raise UnsupportedProgramError(
        f"input {name!r} is {kind}",
        why="only of plain tensors is it known which element belongs to which sample",
        fix="pass x.as_subclass(torch.Tensor), or x.to_dense() of a sparse and x.to_padded_tensor(0) of a nested one",
    )


def _check_no_array(name: str, x: object) -> None:
    if type(x).__module__ == "numpy" and getattr(x, "ndim", False):
        raise UnsupportedProgramError(
            f"input {name!r} is an array of numpy's",
            why="only of tensors is it known which element belongs to which sample",
            fix="pass torch.from_numpy(x), or torch.as_tensor(x)",
        )


def _axis(name: str, leaf: Tensor, batch_dims: BatchDims) -> int | None:
    axis = batch_dims.get(name, 0) if isinstance(batch_dims, Mapping) else batch_dims or 0
    if axis is None or (leaf.ndim == 0 and not isinstance(batch_dims, Mapping)):
        return None
    if not -leaf.ndim <= axis < leaf.ndim:
        raise ArgumentError(
            f"input {name!r} of shape {list(leaf.shape)} has no axis {axis}",
            why="the batch axis tells what one sample is, the unit of privacy",
            fix="pass batch_dims with an axis that the input has, or None if all samples share it",
        )
    return axis % leaf.ndim


def _padded(x: Tensor, axis: int, rows: int) -> Tensor:
    """x with `rows` along `axis`: copies of the first sample, zeros for an empty batch; x itself if it has them.

    No gradient goes to x through the copies: what sums over the rows counts the sample once.
    """
    present = x.shape[axis]
    if present >= rows:
        return x
    if present == 0:
        return x.new_zeros([*x.shape[:axis], rows, *x.shape[axis + 1 :]])
    return torch.cat([x, x.detach().narrow(axis, 0, 1).repeat_interleave(rows - present, axis)], axis)


def _laid_out(x: Tensor, axis: int) -> Tensor:
    """x in memory of which the tracer has nothing to ask that the number of samples decides.

    It compares strides with sizes to tell how a tensor lies. With gaps in it, as in a slice, an axis that lies outside
    the samples' one has a stride that is compared with a multiple of B: the answer would hold for some batches alone.
    """
    outside = any(n > 1 and x.stride(d) >= x.stride(axis) for d, n in enumerate(x.shape) if d != axis)
    return x.contiguous() if outside and not _is_dense(x) else x


def _is_dense(x: Tensor) -> bool:
    """Whether the elements of a tensor fill a piece of memory, in some order of its axes."""
    expected = 1
    for stride, size in sorted((x.stride(d), n) for d, n in enumerate(x.shape) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True
