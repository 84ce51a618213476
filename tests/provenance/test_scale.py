"""The powers of the number of samples that stand before a value: each op keeps them, adds them up, or is refused."""

import pytest
import torch
import torch.nn.functional as F

from dpgraph.provenance.lattice import PerSample, Refused, Shared, SummedOverSamples
from tests.provenance.analysed import B, analyse, samples, shared

aten = torch.ops.aten
T, D = 4, 5
X, W = samples(B, T, D), shared(T, D)
IDS = samples(B, 2, integers=T)


def n(x):
    """The number of samples."""
    return x.shape[0]


PROGRAMS = [
    ("plain", 0, lambda x, w: x, X, W),
    ("over B", -1, lambda x, w: x / n(x), X, W),
    ("times 1 / B", -1, lambda x, w: x * (1 / n(x)), X, W),
    ("times B", 1, lambda x, w: x * n(x), X, W),
    ("times 3 B", 1, lambda x, w: x * (3 * n(x)), X, W),
    ("times B squared", 2, lambda x, w: x * n(x) ** 2, X, W),
    ("over B squared", -2, lambda x, w: x / n(x) / n(x), X, W),
    ("over B squared at once", -2, lambda x, w: x * (1 / (n(x) * n(x))), X, W),
    ("and back", 0, lambda x, w: x / n(x) * n(x), X, W),
    ("times B plus one", None, lambda x, w: x * (n(x) + 1), X, W),
    ("over a shared value times B", -1, lambda x, w: x / (w * n(x)), X, W),
    ("times B plus one over B plus two", None, lambda x, w: x * (n(x) + 1) / (n(x) + 2), X, W),
    ("B over what is scaled", None, lambda x, w: n(x) / (x / n(x)), X, W),
    ("B over x", 1, lambda x, w: n(x) / x, X, W),
    ("mean over the samples", -1, lambda x, w: x.mean(0), X, W),
    ("mean of all", -1, lambda x, w: x.mean(), X, W),
    ("mean over features", 0, lambda x, w: x.mean(1), X, W),
    ("mean of what is scaled", -2, lambda x, w: (x / n(x)).mean(0), X, W),
    ("sum of what is scaled", -1, lambda x, w: (x / n(x)).sum(0), X, W),
    ("product of scaled values", -2, lambda x, w: (x / n(x)) * (x / n(x)), X, W),
    ("matrix product of scaled values", -2, lambda x, w: (x / n(x)) @ (w / n(x)).mT, X, W),
    ("both scaled", -1, lambda x, w: x / n(x) + w / n(x), X, W),
    ("one scaled taken from the other", -1, lambda x, w: x / n(x) - w / n(x), X, W),
    ("squeezed", -1, lambda x, w: aten.squeeze.dim((x / n(x))[:, :1], 1), X, W),
    ("squeezed along several", -1, lambda x, w: aten.squeeze.dims((x / n(x))[:, :1], [1]), X, W),
    ("negated", -1, lambda x, w: -(x / n(x)), X, W),
    ("rows of a scaled table", -1, lambda ids, w: F.embedding(ids, w / n(ids)), IDS, W),
    ("one scaled", None, lambda x, w: x / n(x) + w, X, W),
    ("scaled minus another power", None, lambda x, w: x / n(x) - x * n(x), X, W),
    ("scaled plus zeros", -1, lambda x, w: x / n(x) + torch.zeros_like(w), X, W),
    ("joined", -1, lambda x, w: torch.cat([x / n(x), x / n(x)], 1), X, W),
    ("joined along the last axis", -1, lambda x, w: torch.cat([x / n(x), x / n(x)], -1), X, W),
    ("joined with another power", None, lambda x, w: torch.cat([x / n(x), x], 1), X, W),
    ("joined with zeros", -1, lambda x, w: torch.cat([x / n(x), torch.zeros_like(x)], 1), X, W),
    ("chosen", -1, lambda x, w: torch.where(w > 0, x / n(x), 0.0), X, W),
    ("chosen among two", None, lambda x, w: torch.where(w > 0, x / n(x), x), X, W),
    ("chosen by what is scaled", None, lambda x, w: torch.where(x / n(x) > 0.1, x, 0.0), X, W),
    ("cut into parts", (-1, -1), lambda x, w: aten.split.Tensor(x / n(x), 2, 1), X, W),
    ("cut into other parts", (-1, -1), lambda x, w: aten.split_with_sizes(x / n(x), [1, 3], 1), X, W),
    ("unbound", (-1,) * T, lambda x, w: aten.unbind(x / n(x), 1), X, W),
    ("repeated", -1, lambda x, w: (x / n(x)).repeat(1, 2, 1), X, W),
    ("windows", -1, lambda x, w: (x / n(x)).unfold(1, 2, 1), X, W),
    ("copied", -1, lambda x, w: aten.copy(x, x / n(x)), X, W),
    ("copied over", 0, lambda x, w: aten.copy(x / n(x), x), X, W),
    ("one value for all", -1, lambda x, w: x * aten.full([], 1 / n(x)), X, W),
    ("picked", -1, lambda x, i: (x / n(x))[:, :, 0].gather(1, i), X, IDS),
    ("put", -1, lambda x, i: x.new_zeros(n(x), T).scatter(1, i, (x / n(x))[:, :2, 0]), X, IDS),
    ("added", -1, lambda x, i: x.new_zeros(n(x), T).scatter_add(1, i, (x / n(x))[:, :2, 0]), X, IDS),
    ("put among others", None, lambda x, i: x[:, :, 0].scatter(1, i, (x / n(x))[:, :2, 0]), X, IDS),
    ("added to others", None, lambda x, i: x[:, :, 0].scatter_add(1, i, (x / n(x))[:, :2, 0]), X, IDS),
    ("put at places", -1, lambda x, i: aten.index_put(x.new_zeros(7, D), [i], (x / n(x))[:, :2], True), X, IDS),
    ("scattered into a slice", -1, lambda x, w: torch.zeros_like(x).slice_scatter((x / n(x))[:, :2], 1, 0, 2), X, W),
    ("scattered into a place", -1, lambda x, w: torch.zeros_like(x).select_scatter((x / n(x))[:, 0], 1, 2), X, W),
    (
        "scattered onto a diagonal",
        -1,
        lambda x, w: torch.zeros_like(x).diagonal_scatter(x[..., 0] / n(x), 0, 1, 2),
        X,
        W,
    ),
    ("scattered into others", None, lambda x, w: x.slice_scatter((x / n(x))[:, :2], 1, 0, 2), X, W),
    ("convolved", -1, lambda x, w: F.conv1d(x / n(x), w[None]), X, W),
    ("convolved with a bias", None, lambda x, w: F.conv1d(x / n(x), w[None], w[0, :1]), X, W),
    ("convolved with a scaled bias", -1, lambda x, w: F.conv1d(x / n(x), w[None], w[0, :1] / n(x)), X, W),
    ("rounded", None, lambda x, w: (x / n(x)).to(torch.int64), X, W),
    ("whole numbers times B", 1, lambda x, i: (i * n(x)).to(torch.int32), X, IDS),
    ("copied to whole numbers", None, lambda x, w: aten.copy(x.to(torch.int64), x / n(x)), X, W),
    ("raised", None, lambda x, w: (x / n(x)).exp(), X, W),
]


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case[0])
def test_the_power_of_the_number_of_samples(case):
    _, expected, function, *inputs = case
    found = analyse(function, inputs)
    assert {type(p) for p in found} <= ({Refused} if expected is None else {PerSample, Shared, SummedOverSamples})
    if expected is not None:
        assert tuple(p.power for p in found) == (expected if isinstance(expected, tuple) else (expected,))


def test_the_op_that_brought_the_power_in_is_known():
    (found,) = analyse(lambda x: ((x / x.shape[0]).transpose(1, 2) * 2).sum(0), [X])
    assert found.scaled_at.target is aten.div.Tensor
    (found,) = analyse(lambda x: x.mean(0), [X])
    assert found.scaled_at.target is aten.mean.dim
    (found,) = analyse(lambda x: x / x.shape[0] * x.shape[0], [X])
    assert found.scaled_at is None
