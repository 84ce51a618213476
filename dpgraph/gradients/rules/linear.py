"""How ops that are linear and see no sample carry a per-sample gradient on to the parameter.

A rule is given the gradient, a tuple of forms, in place of the sum that the op got. Where it cannot keep the forms it
materialises them. It returns None for what it does not treat; the op is then mapped over the samples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dpgraph.gradients.convolved import Convolved
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Gradient, materialise
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.registry import linear_rule

aten = torch.ops.aten
prims = torch.ops.prims


def _dense(gradient: Gradient, change: Callable[[Tensor], Tensor]) -> Gradient:
    """`change`, which is linear, applied to the materialised gradients [B, *shape]."""
    return (Dense(change(materialise(gradient))),)


def _matrices(gradient: Gradient, change: Callable[[Outer], Outer]) -> Gradient | None:
    """`change` applied to the outer products, if all forms are plain ones."""
    forms = [form for form in gradient if isinstance(form, Outer) and form.shape is None]
    return tuple(change(form) for form in forms) if len(forms) == len(gradient) else None


@linear_rule(aten.alias.default, aten.clone.default, prims.convert_element_type.default)
def same(gradient: Gradient, *args: Any, **kwargs: Any) -> Gradient:
    """Copies and casts: the sum is cast at the end, to the dtype of the parameter's gradient."""
    return gradient


@linear_rule(aten.copy.default)
def copy(into: Any, gradient: Any) -> Gradient | None:
    """Into memory of the same shape."""
    return gradient if isinstance(gradient, tuple) else None


@linear_rule(aten.where.self)
def where(condition: Tensor, a: Any, b: Any) -> Gradient:
    """Elements of a gradient where a condition on none of the samples holds, of another one or zero elsewhere."""
    kept = _dense(a, lambda g: torch.where(condition, _aligned(g, condition), 0)) if isinstance(a, tuple) else ()
    other = _dense(b, lambda g: torch.where(condition, 0, _aligned(g, condition))) if isinstance(b, tuple) else ()
    return kept + other


@linear_rule(aten.add.Tensor)
def add(a: Any, b: Any, alpha: float = 1) -> Gradient | None:
    """Two uses of a parameter: their forms stand side by side."""
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        return None
    return a + (b if alpha == 1 else tuple(form.scaled(alpha) for form in b))


@linear_rule(aten.sub.Tensor)
def sub(a: Any, b: Any, alpha: float = 1) -> Gradient | None:
    """The second with a minus sign beside the first."""
    return add(a, b, -alpha)


@linear_rule(aten.neg.default)
def neg(gradient: Gradient) -> Gradient:
    """-G_b."""
    return tuple(form.scaled(-1.0) for form in gradient)


@linear_rule(aten.mul.Tensor, aten.mul.Scalar)
def mul(a: Any, b: Any) -> Gradient | None:
    """By a scalar; by anything larger, elements change apart."""
    gradient, factor = (a, b) if isinstance(a, tuple) else (b, a)
    if isinstance(factor, tuple):
        return None
    if isinstance(factor, Tensor) and factor.ndim > 0:
        return _dense(gradient, lambda g: _aligned(g, factor) * factor)
    return tuple(form.scaled(factor) for form in gradient)


@linear_rule(aten.div.Tensor, aten.div.Scalar)
def div(gradient: Any, divisor: Any) -> Gradient | None:
    """By a scalar, or element by element."""
    if not isinstance(gradient, tuple):
        return None
    if isinstance(divisor, Tensor) and divisor.ndim > 0:
        return _dense(gradient, lambda g: _aligned(g, divisor) / divisor)
    return tuple(form.scaled(1 / divisor) for form in gradient)


def _aligned(g: Tensor, other: Tensor) -> Tensor:
    """g [B, *shape] with axes of size 1 behind B for those that `other` has on top of a sample's."""
    return g.reshape(g.shape[0], *[1] * (other.ndim + 1 - g.ndim), *g.shape[1:])


@linear_rule(aten.sum.dim_IntList, aten.sum.default)
def total(gradient: Gradient, dims: Sequence[int] | None = None, keepdim: bool = False, **dtype: Any) -> Gradient:
    """Over axes of the gradient: a weight that was broadcast, or divided by its own norm."""

    def change(g: Tensor) -> Tensor:
        axes = [_stacked(g, d) for d in dims] if dims else list(range(1, g.ndim))
        return g.sum(axes, keepdim=keepdim, **dtype) if axes else g

    return _dense(gradient, change)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Of matrices, in the better precision of the two: what is added up in float32 meets a model's bfloat16."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype) @ y.to(dtype)


@linear_rule(aten.mm.default)
def mm(a: Any, b: Any) -> Gradient | None:
    """By a matrix that all samples share: (u v^T) M = u (M^T v)^T and M (u v^T) = (M u) v^T."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return None
    if isinstance(a, tuple):
        return _matrices(a, lambda form: Outer(form.u, _product(form.v, b))) or _dense(a, lambda g: _product(g, b))
    return _matrices(b, lambda form: Outer(_product(form.u, a.mT), form.v)) or _dense(b, lambda g: _product(a, g))


@linear_rule(aten.bmm.default)
def bmm(a: Any, b: Any) -> Gradient | None:
    """By matrices that all samples share, pair by pair."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return None
    return _dense(a, lambda g: _product(g, b)) if isinstance(a, tuple) else _dense(b, lambda g: _product(a, g))


@linear_rule(aten.cat.default)
def cat(parts: Sequence[Any], dim: int = 0) -> Gradient | None:
    """Gradients of the parts of a whole, side by side."""
    if not all(isinstance(part, tuple) for part in parts):
        return None
    stacks = [materialise(part) for part in parts]
    return (Dense(torch.cat(stacks, _stacked(stacks[0], dim))),)


@linear_rule(aten.permute.default)
def permute(gradient: Gradient, dims: Sequence[int]) -> Gradient | None:
    """Outer products transpose by swapping their factors."""
    if list(dims) == [1, 0] and (swapped := _matrices(gradient, Outer.transposed)) is not None:
        return swapped
    return _dense(gradient, lambda g: g.permute(0, *(1 + d % len(dims) for d in dims)))


@linear_rule(aten.view.default)
def view(gradient: Gradient, shape: Sequence[int]) -> Gradient | None:
    """Another shape of as many elements."""
    products = [form.products() if isinstance(form, Convolved) else form for form in gradient]
    outer = [form for form in products if isinstance(form, Outer)]
    if len(outer) == len(gradient):
        return tuple(form.seen_as(shape) for form in outer)
    return _dense(gradient, lambda g: g.flatten(1).unflatten(1, tuple(shape)) if shape else g.flatten(1).squeeze(1))


@linear_rule(aten.unsqueeze.default)
def unsqueeze(gradient: Gradient, dim: int) -> Gradient | None:
    """A new axis of size 1."""
    return _dense(gradient, lambda g: g.unsqueeze(1 + dim if dim >= 0 else dim))


@linear_rule(aten.squeeze.default, aten.squeeze.dims, aten.squeeze.dim)
def squeeze(gradient: Gradient, dims: int | Sequence[int] | None = None) -> Gradient | None:
    """Axes of size 1 go, all of them by default."""

    def change(g: Tensor) -> Tensor:
        several = range(g.ndim - 1) if dims is None else (dims,) if isinstance(dims, int) else dims
        return g.squeeze(tuple(_stacked(g, d) for d in several))

    return _dense(gradient, change)


@linear_rule(aten.expand.default)
def expand(gradient: Gradient, shape: Sequence[int], implicit: bool = False) -> Gradient | None:
    """Axes of size 1 repeat, new ones come first."""

    def change(g: Tensor) -> Tensor:
        missing = len(shape) - (g.ndim - 1)
        return g.reshape(g.shape[0], *[1] * missing, *g.shape[1:]).expand(-1, *shape)

    return _dense(gradient, change)


@linear_rule(aten.slice.Tensor)
def slice_(gradient: Gradient, dim: int = 0, *window: Any) -> Gradient | None:
    """A part along one axis."""
    return _dense(gradient, lambda g: aten.slice.Tensor(g, _stacked(g, dim), *window))


@linear_rule(aten.select.int)
def select(gradient: Gradient, dim: int, index: int) -> Gradient | None:
    """One index of one axis."""
    return _dense(gradient, lambda g: g.select(_stacked(g, dim), index))


@linear_rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(gradient: Gradient, indices: Sequence[Tensor | None]) -> Gradient | None:
    """Elements at indices that all samples share."""
    return _dense(gradient, lambda g: aten.index.Tensor(g, [None, *indices]))


@linear_rule(aten.slice_scatter.default)
def slice_scatter(whole: Any, gradient: Any, dim: int = 0, *window: Any) -> Gradient | None:
    """The gradient as a part of zeros."""
    if isinstance(whole, tuple):
        return None
    return _dense(gradient, lambda g: aten.slice_scatter(_for_each(whole, g), g, 1 + dim % whole.ndim, *window))


@linear_rule(aten.select_scatter.default)
def select_scatter(whole: Any, gradient: Any, dim: int, index: int) -> Gradient | None:
    """The gradient as one index of zeros."""
    if isinstance(whole, tuple):
        return None
    return _dense(gradient, lambda g: aten.select_scatter(_for_each(whole, g), g, 1 + dim % whole.ndim, index))


@linear_rule(aten.constant_pad_nd.default)
def pad(gradient: Gradient, widths: Sequence[int], value: float = 0) -> Gradient | None:
    """Zeros around; axes are counted from the last, so the samples' one is not touched."""
    return _dense(gradient, lambda g: aten.constant_pad_nd(g, widths, value))


@linear_rule(prims.rev.default)
def flip(gradient: Gradient, dims: Sequence[int]) -> Gradient | None:
    """Axes run backwards."""
    return _dense(gradient, lambda g: g.flip([_stacked(g, d) for d in dims]))


def _stacked(g: Tensor, dim: int) -> int:
    """Axis `dim` of one sample's gradient, as an axis of the stack."""
    return 1 + dim % (g.ndim - 1)


def _for_each(whole: Tensor, g: Tensor) -> Tensor:
    return whole.expand(g.shape[0], *whole.shape)
