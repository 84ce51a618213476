"""Spell out functions whose ATen op hides what becomes of a sample, before autograd sees them.

`embedding_bag` flattens its ids and tells the bags apart by the numbers at which they begin: data, of which no analysis
of shapes can say whose they are. As a lookup and a reduction the same is plain, and so is its gradient. `bilinear` is
an operator of many settings in which a product of matrices hides; `cdist` chooses how to compute by the number of rows;
the gradient of `affine_grid` needs sizes that are numbers. Recurrent networks and masks have modules of their own.
What torch takes `multilabel_margin_loss` apart into is another function.

`inv`, `solve` and `cholesky` stop the program if one matrix of the batch has no solution, so that one sample would
decide whether the others are trained on. Spelled out, the values of that sample alone are not finite.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule

from dpgraph.capture.masks import MASKS, write_by_mask
from dpgraph.capture.recurrent import RECURRENT

__all__ = ["spell_out"]

BY_SIZE = "use_mm_for_euclid_dist_if_necessary"


def spell_out(gm: GraphModule) -> None:
    """Replace, in place, the calls of functions in `SPELLINGS` by calls of what they are made of."""
    write_by_mask(gm.graph)
    for node in gm.graph.nodes:
        if node.op == "call_method" and (function := getattr(Tensor, node.target, None)) in SPELLINGS:
            node.op, node.target = "call_function", function
        if node.op == "call_function" and node.target in SPELLINGS:
            node.target = SPELLINGS[node.target]
    gm.recompile()


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """`torch.nn.functional.embedding_bag` of ids [N, T], a bag a row, with gradients of the same values: [N, d].

    Bags of different lengths (ids [N * T] with offsets), and options that write into the table or scale by counts over
    all bags, are left as they are.
    """
    if input.ndim != 2 or max_norm is not None or scale_grad_by_freq or sparse:
        return F.embedding_bag(
            input,
            weight,
            offsets,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
    rows = F.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    kept = torch.ones_like(input, dtype=torch.bool) if padding_idx is None else input != padding_idx % weight.shape[0]
    kept = kept.unsqueeze(-1)
    if mode == "max":
        # of equal values one gets the gradient; a bag of padding alone is zero
        largest = torch.where(kept, rows, -math.inf).max(1).values
        return torch.where(kept.any(1), largest, 0)
    total = torch.where(kept, rows, 0).sum(1)
    return total if mode == "sum" else total / kept.sum(1).clamp_min(1)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.bilinear` of [*, d] and [*, e] with the weight [p, d, e]: [*, p]."""
    # two operands at a time: of three, the order would be chosen by sizes
    halfway = torch.einsum("...d,pde->...pe", input1, weight)
    product = torch.einsum("...pe,...e->...p", halfway, input2)
    return product if bias is None else product + bias


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """`torch.nn.functional.affine_grid` of theta [N, k, k + 1] and k axes of space: points [N, *space, k].

    Torch's gradient of it knows sizes that are numbers alone.
    """
    space = size[2:]
    if theta.ndim != 3 or len(space) not in (2, 3):
        return F.affine_grid(theta, size, align_corners)  # type: ignore[arg-type]
    lines = [_centres(n, theta, bool(align_corners)) for n in space]
    # the last axis of space is the first coordinate
    points = [*reversed(torch.meshgrid(lines, indexing="ij")), theta.new_ones(space)]
    pixels = torch.stack(points, -1).flatten(0, -2).expand(theta.shape[0], -1, -1)
    return torch.bmm(pixels, theta.mT).view(size[0], *space, len(space))


def _centres(num: int, like: Tensor, align_corners: bool) -> Tensor:
    """The places of `num` pixels between -1 and 1: the edges are those of the outer pixels, or their centres."""
    if num == 1:
        return like.new_zeros(1)
    end = 1.0 if align_corners else (num - 1) / num
    return torch.linspace(-end, end, num, dtype=like.dtype, device=like.device)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = BY_SIZE) -> Tensor:
    """`torch.cdist`, by default with one way to compute it: torch takes another one from 26 rows on."""
    return torch.cdist(x1, x2, p, "donot_use_mm_for_euclid_dist" if compute_mode == BY_SIZE else compute_mode)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`torch.nn.functional.multilabel_margin_loss` of scores [*, C] and labels [*, C] that end at the first -1: [*].

    Torch 2.13 reads every label behind the end as 0 and adds its terms, too (`torch/_decomp/decompositions.py`).
    """
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    num_classes = input.shape[-1]
    is_label = (target == -1).cumsum(-1) == 0
    labels = torch.where(is_label, target, 0)
    classes = torch.arange(num_classes, device=target.device)
    is_among_labels = (is_label.unsqueeze(-1) & (labels.unsqueeze(-1) == classes)).any(-2)
    margins = 1 - input.gather(-1, labels).unsqueeze(-1) + input.unsqueeze(-2)
    counts = is_label.unsqueeze(-1) & ~is_among_labels.unsqueeze(-2)
    losses = torch.where(counts, margins.clamp_min(0), 0).sum((-2, -1)) / num_classes
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def inv(A: Tensor) -> Tensor:  # noqa: N803  torch's name
    """`torch.linalg.inv` that gives values that are not finite in place of an error."""
    inverse, info = torch.linalg.inv_ex(A)
    return _where_solved(inverse, info)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:  # noqa: N803
    """`torch.linalg.solve` that gives values that are not finite in place of an error."""
    solution, info = torch.linalg.solve_ex(A, B, left=left)
    return _where_solved(solution, info)


def cholesky(A: Tensor, upper: bool = False) -> Tensor:  # noqa: N803
    """`torch.linalg.cholesky` that gives values that are not finite in place of an error."""
    factor, info = torch.linalg.cholesky_ex(A, upper=upper)
    return _where_solved(factor, info)


def _where_solved(result: Tensor, info: Tensor) -> Tensor:
    """`result`, and NaN for the matrices that have none, which `info` [*] tells."""
    return torch.where(info.reshape(info.shape + (1,) * (result.ndim - info.ndim)) == 0, result, math.nan)


SPELLINGS: dict[Any, Callable[..., Any]] = {
    **RECURRENT,
    F.affine_grid: affine_grid,
    F.bilinear: bilinear,
    F.embedding_bag: embedding_bag,
    F.multilabel_margin_loss: multilabel_margin_loss,
    torch.cdist: cdist,
    torch.cholesky: cholesky,
    torch.inverse: inv,
    torch.linalg.cholesky: cholesky,
    torch.linalg.inv: inv,
    torch.linalg.solve: solve,
    Tensor.cholesky: cholesky,
    Tensor.inverse: inv,
    **MASKS,
}
