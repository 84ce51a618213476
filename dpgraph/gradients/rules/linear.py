"""How ops that are linear and see no sample carry a per-sample gradient on to the parameter.

Only ops that a form survives stand here; all others materialise it and are applied to each sample by the fallback.
"""

import math
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Gradient
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.registry import linear_rule

aten = torch.ops.aten
prims = torch.ops.prims


@linear_rule(aten.alias.default, aten.clone.default, aten.detach.default, prims.convert_element_type.default)
def same(gradient: Gradient, *args: Any, **kwargs: Any) -> Gradient:
    """Copies and casts: the sum is cast at the end, to the dtype of the parameter's gradient."""
    return gradient


@linear_rule(aten.add.Tensor)
def add(a: Any, b: Any, alpha: float = 1) -> Gradient | None:
    """Two uses of a parameter: their forms stand side by side."""
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        return None
    return a + (b if alpha == 1 else tuple(form.scaled(alpha) for form in b))


@linear_rule(aten.neg.default)
def neg(gradient: Gradient) -> Gradient:
    """-G_b."""
    return tuple(form.scaled(-1.0) for form in gradient)


@linear_rule(aten.mul.Tensor, aten.mul.Scalar)
def mul(a: Any, b: Any) -> Gradient | None:
    """By a scalar; by anything larger, elements change apart."""
    gradient, factor = (a, b) if isinstance(a, tuple) else (b, a)
    if isinstance(factor, tuple) or (isinstance(factor, Tensor) and factor.ndim > 0):
        return None
    return tuple(form.scaled(factor) for form in gradient)


@linear_rule(aten.div.Tensor, aten.div.Scalar)
def div(gradient: Any, divisor: Any) -> Gradient | None:
    """By a scalar."""
    if not isinstance(gradient, tuple) or (isinstance(divisor, Tensor) and divisor.ndim > 0):
        return None
    return tuple(form.scaled(1 / divisor) for form in gradient)


@linear_rule(aten.permute.default, aten.t.default, aten.transpose.int)
def transpose(gradient: Gradient, *dims: Any) -> Gradient | None:
    """Outer products transpose by swapping their factors."""
    swaps = dims in ((), ([1, 0],), (0, 1), (1, 0))
    matrices = [form for form in gradient if isinstance(form, Outer) and form.shape is None]
    return tuple(form.transposed() for form in matrices) if swaps and len(matrices) == len(gradient) else None


@linear_rule(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def view(gradient: Gradient, shape: Any) -> Gradient | None:
    """Dense gradients are reshaped each by itself; a shape that is the same changes nothing."""
    if all(isinstance(form, Outer) for form in gradient):
        return tuple(form.seen_as(shape) for form in gradient if isinstance(form, Outer))
    if not all(isinstance(form, Dense) for form in gradient):
        return None
    known = math.prod(s for s in shape if s != -1)
    dense = [form.materialise() for form in gradient]
    full = [s if s != -1 else math.prod(dense[0].shape[1:]) // known for s in shape]
    return tuple(Dense(g.reshape(g.shape[0], *full)) for g in dense)
