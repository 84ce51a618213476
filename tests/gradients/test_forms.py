"""The laws that every form must obey.

norm_sq == |materialise|^2          dot == <materialise, materialise>
weighted_sum(w) == sum_b w_b materialise_b        a sample of weight 0 adds exactly nothing
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpgraph.gradients.certified import added_up
from dpgraph.gradients.convolved import Convolved, Geometry
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.forms import Form, norm_sq_terms, weighted_sum
from dpgraph.gradients.outer import Outer
from dpgraph.gradients.rows import Rows
from dpgraph.torch_compat import FakeTensorMode
from tests.gradients.certify import assert_certified
from tests.gradients.draws import BATCHES, EXACT, SIZES, randn


@st.composite
def forms(draw: Callable[..., Any], kinds: tuple[str, ...] = ("dense", "outer", "seen", "rows")) -> list[Form]:
    """Several forms of one parameter [p, d] and one B."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    batch, p, d = draw(BATCHES), draw(SIZES), draw(SIZES)

    def one(kind: str) -> Form:
        positions = draw(SIZES)
        match kind:
            case "dense":
                return Dense(randn(batch, p, d))
            case "outer":
                return Outer(randn(batch, positions, p), randn(batch, positions, d))
            case "seen":
                return Outer(randn(batch, positions, d), randn(batch, positions, p)).seen_as((p, -1))
            case _:
                return Rows(torch.randint(p, (batch, positions)), randn(batch, positions, d), p)

    return [one(kind) for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))]


def num_samples(form: Form) -> int:
    return form.materialise().shape[0]


@given(forms())
def test_norm_is_that_of_the_materialised(several: list[Form]) -> None:
    for form in several:
        assert_certified(form.norm_sq(), form.materialise().flatten(1).pow(2).sum(1), rtol=EXACT["rtol"])
        for size in (form.size(), form.norm_sq_and_size()[1]):
            assert (size >= form.materialise().flatten(1).norm(dim=1) * (1 - 1e-12)).all()


@given(forms())
def test_dot_is_that_of_the_materialised(several: list[Form]) -> None:
    for a in several:
        for b in several:
            expected = (a.materialise() * b.materialise()).flatten(1).sum(1)
            assert_certified(a.dot(b, a.size() * b.size()), expected, rtol=EXACT["rtol"])


@given(forms())
def test_weighted_sum_is_that_of_the_materialised(several: list[Form]) -> None:
    for form in several:
        w = torch.rand(num_samples(form), dtype=torch.float64)
        torch.testing.assert_close(form.weighted_sum(w), torch.tensordot(w, form.materialise(), 1), **EXACT)


@given(forms())
def test_a_gradient_is_the_sum_of_its_forms(several: list[Form]) -> None:
    total = sum((form.materialise() for form in several), start=torch.zeros((), dtype=torch.float64))
    w = torch.rand(len(total), dtype=torch.float64)
    found = torch.stack(added_up(norm_sq_terms(tuple(several))))
    assert_certified(found, total.flatten(1).pow(2).sum(1), rtol=EXACT["rtol"])
    torch.testing.assert_close(weighted_sum(tuple(several), w), torch.tensordot(w, total, 1), **EXACT)


@given(forms(), st.floats(-2, 2))
def test_scaling(several: list[Form], c: float) -> None:
    for form in several:
        torch.testing.assert_close(form.scaled(c).materialise(), c * form.materialise(), **EXACT)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_sample_of_weight_zero_adds_exactly_nothing(poison: float) -> None:
    index = torch.randint(3, (3, 2))
    clean: list[Form] = [Dense(randn(3, 3, 4)), Outer(randn(3, 2, 3), randn(3, 2, 4)), Rows(index, randn(3, 2, 4), 3)]
    clean += [convolved(groups) for groups in (1, 2)]
    w = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    for form in clean:
        expected = form.weighted_sum(w)
        for tensor in vars_of(form):
            tensor[1] = poison
        assert torch.equal(form.weighted_sum(w), expected)
        assert not torch.isfinite(form.norm_sq().value[1])
        assert torch.isfinite(form.norm_sq().value[[0, 2]]).all()


def convolved(groups: int) -> Convolved:
    """Three samples of two images of five positions, under a kernel of size 2."""
    geometry = Geometry((1,), (0,), (1,), False, (0,), groups)
    return Convolved(randn(3, 2, 4, 4), randn(3, 2, 2 * groups, 5), randn(4, 2, 2), geometry)


@pytest.mark.parametrize(("groups", "products"), [(1, Outer), (2, Dense)])
def test_a_convolution_without_groups_has_a_ghost_norm(groups: int, products: type[Form]) -> None:
    form = convolved(groups)
    assert isinstance(form.products(), products)
    assert_certified(form.products().norm_sq(), form.materialise().square().sum((1, 2, 3)))


def transformed(geometry: Geometry, batch: int = 4) -> Convolved:
    """Of a convolution, or a transposed one, of images [C, 6, 5] by three channels each way."""
    image, weight = torch.randn(batch, 2, 3, 6, 5).double(), torch.randn(3, 3, 2, 3).double()
    out = torch.convolution(image.flatten(0, 1), weight, None, *geometry_arguments(geometry))
    return Convolved(torch.randn_like(out).unflatten(0, (batch, 2)), image, weight, geometry)


def geometry_arguments(g: Geometry) -> tuple[Any, ...]:
    return g.stride, g.padding, g.dilation, g.transposed, g.output_padding, g.groups


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 1), (0, 0), (1, 1), False, (0, 0), 1),
        Geometry((2, 1), (1, 2), (1, 2), False, (0, 0), 1),
        Geometry((2, 1), (1, 0), (1, 2), True, (1, 0), 1),
    ],
)
def test_a_convolution_is_summed_in_two_ways(geometry: Geometry, by_product: bool, monkeypatch) -> None:
    form, w = transformed(geometry), torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensordot(w, form.materialise(), 1)
    monkeypatch.setattr(Convolved, "sums_by_product", by_product)
    form.grad[2], form.image[2] = float("nan"), float("inf")
    torch.testing.assert_close(form.weighted_sum(w), expected, **EXACT)


@pytest.mark.parametrize(
    ("device", "channels", "side", "kernel", "groups", "transposed", "by_product"),
    [
        ("cpu", 64, 16, 1, 1, False, True),
        ("cpu", 64, 16, 3, 1, False, False),
        ("cpu", 256, 4, 3, 1, False, True),
        ("cpu", 256, 4, 3, 1, True, True),
        ("cpu", 256, 8, 3, 1, False, False),
        ("cpu", 256, 4, 3, 2, False, False),
        ("cuda", 256, 4, 1, 1, False, False),
    ],
)
def test_products_sum_convolutions_of_small_images(
    device: str, channels: int, side: int, kernel: int, groups: int, transposed: bool, by_product: bool
) -> None:
    with FakeTensorMode():
        image = torch.empty(8, 1, channels, side, side, device=device)
        weight = torch.empty(channels, channels // groups, kernel, kernel, device=device)
    geometry = Geometry((1, 1), (kernel // 2,) * 2, (1, 1), transposed, (0, 0), groups)
    assert Convolved(image, image, weight, geometry).sums_by_product == by_product


def vars_of(form: Form) -> list[Tensor]:
    named = (getattr(form, name) for name in ("g", "u", "v", "grad", "image") if hasattr(form, name))
    return [x for x in named if isinstance(x, Tensor)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_norms_are_added_up_in_float64(dtype: torch.dtype) -> None:
    index = torch.zeros(2, 600, dtype=torch.int64)
    for form in (
        Dense(torch.full((2, 600, 4), 8.0, dtype=dtype)),
        Outer(torch.full((2, 600, 2), 8.0, dtype=dtype), torch.full((2, 600, 2), 8.0, dtype=dtype)),
        Rows(index, torch.full((2, 600, 2), 8.0, dtype=dtype), 3),
    ):
        assert all(x.dtype == torch.float64 for x in form.norm_sq().tensors())
        assert torch.isfinite(form.norm_sq().value).all()
