"""What the analysis says of a program must be true of it: every claim is checked by changing one sample's values.

A program stands here with the claim that is expected, so that the analysis is neither too bold nor too timid.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Refused, SamplePosition, Shared, SummedOverSamples
from tests.provenance.analysed import B, Input, analyse, samples, shared
from tests.provenance.flat_rows import FLAT
from tests.provenance.indexing import INDEXING
from tests.provenance.matrices import MATRICES
from tests.provenance.program import Program, program
from tests.provenance.rows import ROWS

aten = torch.ops.aten
T, D = 4, 5
NUM_SAMPLES = 3


X = samples(B, T, D)
W = shared(D, 6)

PROGRAMS = [
    # pointwise
    program("add", 0, lambda x, y: x + y, X, X),
    program("add shared", 0, lambda x, w: x + w, X, shared(T, D)),
    program("broadcast samples", 0, lambda x, y: x * y, X, samples(B, 1, 1)),
    program("misaligned", "refused", lambda x, y: x[:, :1, 0] * y[:, 0, 0], X, X),
    program("copysign", 0, lambda x, y: torch.copysign(x, y), X, X),
    program("where", 0, lambda x: torch.where(x > 0, x, 0.0), X),
    program("dropout", 0, lambda x: torch.where(torch.rand_like(x) > 0.5, x, 0.0), X),
    program("values of a sample's shape", 0, lambda x: torch.zeros_like(x), X),
    program("times the number of samples", 0, lambda x: x / x.shape[0], X),
    # the number of samples, and the place of a sample among them
    program("noise", 0, lambda x: x + torch.rand_like(x), X),
    program(
        "made zeros over merged axes", 0, lambda x: x.transpose(0, 1).reshape(-1, D) + x.new_zeros(T * x.shape[0], D), X
    ),
    program("sum of ones", "sum", lambda x: torch.ones_like(x).sum(), X),
    program("over the sum of ones", "refused", lambda x: x / x.new_ones(x.shape[0]).sum(), X),
    program("product of ones", "refused", lambda x: x * (x.new_ones(1, x.shape[0]) @ x.new_ones(x.shape[0], 1)), X),
    program("softmax of noise", "refused", lambda x: x * torch.rand_like(x[:, :1, :1]).softmax(0), X),
    program("count by cumsum", "refused", lambda x: x * torch.ones_like(x[:, :1, :1]).cumsum(0), X),
    program("arange", "position", lambda x: torch.arange(x.shape[0]), X),
    program("arange as data", "refused", lambda x: x * torch.arange(0.0, x.shape[0], 1.0)[:, None, None], X),
    program("longer arange as data", "refused", lambda x: x * torch.arange(D * x.shape[0]).view(-1, 1, D), X),
    program("arange from the number of samples", "refused", lambda x: x * torch.arange(x.shape[0], x.shape[0] + D), X),
    program("rows of a table", "refused", lambda x, w: x * w[: x.shape[0], None], X, shared(9, 1)),
    program("column behind the batch", "refused", lambda x: x[:, : x.shape[0]], samples(B, 9)),
    program(
        "joined ones",
        "refused",
        lambda x: x * torch.cat([x.new_zeros(1), x.new_ones(x.shape[0] - 1)])[:, None, None],
        X,
    ),
    program(
        "repeated table",
        "refused",
        lambda x, w: x.repeat(2, 1, 1) * w.repeat(x.shape[0], 1, 1),
        X,
        shared(2, 1, 1),
    ),
    program("table for every two samples", "refused", lambda x, w: w.repeat(x.shape[0], x.shape[0]), X, shared(2, 2)),
    program("two tables a sample", "refused", lambda x, w: w.repeat(2 * x.shape[0], 1), X, shared(2, 2)),
    program("expanded row", 0, lambda x, w: x * w.expand(x.shape[0], -1, -1), X, shared(1, T, 1)),
    program("repeated row", 0, lambda x, w: x * w.repeat(x.shape[0], 1, 1), X, shared(1, T, 1)),
    program("random order", "refused", lambda x: x[torch.randperm(x.shape[0])], X),
    program("power of the number of samples", "refused", lambda x: x.abs() ** x.shape[0], X),
    program("clamped by the number of samples", "refused", lambda x: x.clamp(max=x.shape[0]), X),
    program("plus the number of samples", "refused", lambda x: x + x.shape[0], X),
    program("exponential of a scaled value", "refused", lambda x: (x / x.shape[0]).exp(), X),
    program("spread over the batch", "refused", lambda x: x[:, :1].expand(-1, x.shape[0], -1).sum(1), X),
    program("mean minus scaled", 0, lambda x: x.mean(1) - x.sum(1) / 2, X),
    program("times one over the number of samples", 0, lambda x: x * (1 / x.shape[0]), X),
    # views
    program("view of made zeros", 1, lambda x: x.transpose(0, 1) + x.new_zeros(T * x.shape[0], D).view(T, -1, D), X),
    program("view of made zeros as they lie", 0, lambda x: x + x.new_zeros(T * x.shape[0], D).view(-1, T, D), X),
    program("noise over merged axes", 0, lambda x: x.reshape(-1, D) * torch.rand(x.shape[0] * T, D), X),
    program(
        "overwrite the first of the batch", "refused", lambda x, w: x.slice_scatter(w, -3, 0, 1), X, shared(1, T, D)
    ),
    program(
        "overwrite features", 0, lambda x, w: x.slice_scatter(w.expand(x.shape[0], 1, D), -2, 0, 1), X, shared(1, 1, D)
    ),
    program("flatten", 0, lambda x: x.reshape(-1, D), X),
    program("flatten and back", 0, lambda x: x.reshape(-1, D).view(x.shape[0], T, D), X),
    program("flatten from the second axis", 1, lambda x: x.reshape(T, -1), samples(T, B, D)),
    program("merged behind", 1, lambda x: x.permute(1, 0, 2).reshape(T, -1), X),
    program("merged in the middle", 0, lambda x: x.permute(1, 0, 2).reshape(-1, D), X),
    program("reshaped into another batch", "refused", lambda x: x.permute(1, 0, 2).reshape(x.shape[0], T, D), X),
    program("alias", 0, lambda x: aten.alias(x), X),
    program("permute", 2, lambda x: x.permute(1, 2, 0), X),
    program("transpose", 1, lambda x: x.transpose(0, 1), X),
    program("matrix transpose", 1, lambda x: x.t(), samples(B, D)),
    program("unsqueeze before", 1, lambda x: x.unsqueeze(0), X),
    program("unsqueeze behind", 0, lambda x: x.unsqueeze(-1), X),
    program("squeeze", 0, lambda x: x.squeeze(1), samples(B, 1, D)),
    program("squeeze before", 0, lambda x: x.squeeze(0), samples(1, B, D)),
    program("expand", 0, lambda x: x.expand(-1, T, -1), samples(B, 1, D)),
    program("expand before", 1, lambda x: x.expand(T, -1, -1), samples(B, D)),
    program("repeat", 0, lambda x: x.repeat(1, 2, 1), X),
    program("repeat the batch", 0, lambda x: x.repeat(2, 1, 1), X),
    program("repeat interleaved", 0, lambda x: x.repeat_interleave(2, 0), X),
    program("slice", 0, lambda x: x[:, 1:3], X),
    program("slice the batch", "refused", lambda x: x[1:], X),
    program("slice a block of the batch", 0, lambda x: x.repeat(2, 1, 1)[x.shape[0] :], X),
    program("slice a block that is shifted", "refused", lambda x: x.repeat(2, 1, 1)[1 : x.shape[0] + 1], X),
    program("select", 0, lambda x: x[:, 0], X),
    program("select a sample", "refused", lambda x: x[0], X),
    program("chunk", (0, 0), lambda x: x.chunk(2, 1), X),
    program("split", (0, 0), lambda x: x.split([1, 3], 1), X),
    program("split the batch", ("refused", "refused"), lambda x: x.split_with_sizes([1, x.shape[0] - 1], 0), X),
    program("unbind", (0,) * T, lambda x: x.unbind(1), X),
    program("cat", 0, lambda x, y: torch.cat([x, y], 1), X, X),
    program("cat with shared", 0, lambda x, w: torch.cat([x, w.expand(x.shape[0], -1, -1)], 1), X, shared(1, 1, D)),
    program("cat batches", 0, lambda x, y: torch.cat([x, y]), X, X),
    program("cat shared to the batch", "refused", lambda x, w: torch.cat([w, x]), X, shared(2, T, D)),
    program("stack", 1, lambda x, y: torch.stack([x, y]), X, X),
    program("pad", 0, lambda x: F.pad(x, (1, 1)), X),
    program("pad the batch", "refused", lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)), X),
    program("flip", 0, lambda x: x.flip(1), X),
    program("flip the batch", "refused", lambda x: x.flip(0), X),
    program("roll", 0, lambda x: x.roll(1, 1), X),
    program("roll the batch", "refused", lambda x: x.roll(1, 0), X),
    program("unfold", 0, lambda x: x.unfold(1, 2, 1), X),
    program("unfold the batch", "refused", lambda x: x.unfold(0, 2, 1), X),
    program("slice_scatter", 0, lambda x, y: x.slice_scatter(y[:, :2], 1, 0, 2), X, X),
    program("select_scatter", 0, lambda x, y: x.select_scatter(y[:, 0], 1, 2), X, X),
    program("overwrite one sample", "refused", lambda x: x.select_scatter(x[0] * 0, 0, 0), X),
    # reductions
    program("sum over features", 0, lambda x: x.sum((1, 2)), X),
    program("sum keeping axes", 0, lambda x: x.sum((1, 2), keepdim=True), X),
    program("sum over samples", "sum", lambda x: x.sum(0), X),
    program("sum of all", "sum", lambda x: x.sum(), X),
    program("mean over samples", "sum", lambda x: x.mean(0), X),
    program("mean of features", 0, lambda x: x.mean(-1), X),
    program("subtract the mean over samples", "refused", lambda x: x - x.mean(0), X),
    program("mean of all", "sum", lambda x: x.mean(), X),
    program("max over features", 0, lambda x: x.amax(-1), X),
    program("min over features", 0, lambda x: x.amin(-1), X),
    program("max over samples", "refused", lambda x: x.amax(0), X),
    program("max with index", (0, 0), lambda x: torch.max(x, 1), X),
    program("min with index", (0, 0), lambda x: torch.min(x, 1), X),
    program("max of all", "refused", lambda x: x.max(), X),
    program("min of all", "refused", lambda x: x.min(), X),
    program("any", 0, lambda x: (x > 0).any(1), X),
    program("any of all", "refused", lambda x: (x > 0).any(), X),
    program("all", 0, lambda x: (x > 0).all(1), X),
    program("all of all", "refused", lambda x: (x > 0).all(), X),
    program("any of several axes", 0, lambda x: (x > 0).any((1, 2)), X),
    program("all of several axes", 0, lambda x: (x > 0).all((1, 2)), X),
    program("prod", 0, lambda x: x.prod(1), X),
    program("prod of all", "refused", lambda x: x.prod(), X),
    program("argmax", 0, lambda x: x.argmax(-1), X),
    program("argmin", 0, lambda x: x.argmin(-1), X),
    program("argmax of all", "refused", lambda x: x.argmax(), X),
    program("logsumexp", 0, lambda x: x.logsumexp(-1), X),
    program("variance", 0, lambda x: x.var(-1), X),
    program("variance over samples", "refused", lambda x: x.var(0), X),
    program("standard deviation", 0, lambda x: x.std(-1), X),
    program("norm", 0, lambda x: torch.linalg.vector_norm(x, dim=(1, 2)), X),
    program("norm of all", "refused", lambda x: torch.linalg.vector_norm(x), X),
    program("layer norm", 0, lambda x: F.layer_norm(x, (D,)), X),
    program("group norm", 0, lambda x: F.group_norm(x, 2), X),
    program("batch norm", "refused", lambda x: F.batch_norm(x, None, None, training=True), X),
    program(
        "batch norm with fixed statistics", 0, lambda x, m, v: F.batch_norm(x, m, v.exp()), X, shared(T), shared(T)
    ),
    program("softmax", 0, lambda x: x.softmax(-1), X),
    program("log_softmax", 0, lambda x: x.log_softmax(-1), X),
    program("softmax over samples", "refused", lambda x: x.softmax(0), X),
    program("softmax backward", 0, lambda g, y: aten._softmax_backward_data(g, y, -1, g.dtype), X, X),
    program(
        "softmax backward over samples", "refused", lambda g, y: aten._softmax_backward_data(g, y, 0, g.dtype), X, X
    ),
    program("cumsum", 0, lambda x: x.cumsum(1), X),
    program("Fourier transform", 0, lambda x: torch.fft.fft2(x, dim=(1, 2)).real, X),
    program("Fourier transform of reals and back", 0, lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), T, dim=1), X),
    program("Fourier transform over samples", "refused", lambda x: torch.fft.fft(x, dim=0).real, X),
    program("Fourier transform of a sum", "sum", lambda x: torch.fft.fft(x.sum(0)).real, X),
    program("complex from pairs", 0, lambda x: torch.view_as_complex(x).abs(), samples(B, T, 2)),
    program("copy of a sum", "sum", lambda x: torch.ops.aten.copy(torch.zeros(D), x.sum((0, 1))), X),
    program("copy of a sum to all", "refused", lambda x: torch.ops.aten.copy(torch.zeros_like(x), x.sum((0, 1))), X),
    program("copy", 0, lambda x, y: torch.ops.aten.copy(x, y), X, samples(B, 1, 1)),
    program(
        "memory of its own", "refused", lambda x: x.new_empty_strided((x.shape[0], x.shape[0]), (9, 1)) * x[:, :1, 0], X
    ),
    program("cumsum over samples", "refused", lambda x: x.cumsum(0), X),
    program("cumprod", 0, lambda x: x.cumprod(1), X),
    program("logcumsumexp", 0, lambda x: x.logcumsumexp(1), X),
    program("cummax", (0, 0), lambda x: x.cummax(1), X),
    program("cummin", (0, 0), lambda x: x.cummin(1), X),
    program("sort", (0, 0), lambda x: x.sort(1), X),
    program("stable sort", (0, 0), lambda x: x.sort(dim=1, stable=True), X),
    program("sort over samples", ("refused", "refused"), lambda x: x.sort(0), X),
    program("topk", (0, 0), lambda x: x.topk(2, 1), X),
    program("topk over samples", ("refused", "refused"), lambda x: x.topk(2, 0), X),
    # products
    program("linear", 0, lambda x, w: x @ w, X, W),
    program("matrix product", 0, lambda x, w: x @ w, samples(B, D), W),
    program("product from the left", 1, lambda x, w: w.t() @ x.t(), samples(B, D), W),
    program("every sample with every other", "refused", lambda x: x @ x.t(), samples(B, D)),
    program("sum of outer products", "sum", lambda x, y: x.t() @ y, samples(B, D), samples(B, D)),
    program("with one side shared", "sum", lambda x, w: x.t() @ w, samples(B, D), shared(B, 2)),
    program("over flattened positions", "sum", lambda x, y: x.reshape(-1, D).t() @ y.reshape(-1, D), X, X),
    program(
        "over positions in another order",
        "refused",
        lambda x, y: x.reshape(-1, D).t() @ y.transpose(0, 1).reshape(-1, D),
        X,
        X,
    ),
    program("vector", 0, lambda x, w: x.mv(w), samples(B, D), shared(D)),
    program("sum as a vector product", "sum", lambda x, y: x.t().mv(y), samples(B, D), samples(B)),
    program("dot", "sum", lambda x, y: x.dot(y), samples(B), samples(B)),
    program("attention scores", 0, lambda q, k: q @ k.transpose(-1, -2), X, X),
    program(
        "attention over samples", "refused", lambda q, k: q @ k.transpose(-1, -2), samples(T, B, D), samples(T, B, D)
    ),
    program("batched sum of products", "sum", lambda x, y: torch.bmm(x, y), samples(T, D, B), samples(T, B, D)),
    program("addmm", 0, lambda b, x, w: aten.addmm(b, x, w), shared(6), samples(B, D), W),
    program("addmm from the right", 1, lambda b, x, w: aten.addmm(b, w.t(), x.t()), shared(6, 1), samples(B, D), W),
    program("addmm over samples", "refused", lambda b, x, y: aten.addmm(b, x.t(), y), shared(D), *[samples(B, D)] * 2),
    program("addmm of samples", 0, lambda b, x, w: aten.addmm(b, x, w), samples(B, 6), samples(B, D), W),
    program("baddbmm", 0, lambda b, x, y: torch.baddbmm(b, x, y), samples(B, T, T), X, samples(B, D, T)),
    program("linear in a sum", "sum", lambda x, w: x.sum(0) @ w, X, W),
    program("square of a sum", "refused", lambda x: x.sum(0) ** 2, X),
    program("sum times a sample", "refused", lambda x: x.sum(0) * x, X),
    program("scaled sum", "sum", lambda x, w: x.sum(0) * w / 3, X, shared(T, D)),
    program("shared value times a sum", "sum", lambda x, w: w * x.sum(0), X, shared(T, D)),
    program("product of sums", "refused", lambda x, y: x.sum(0) * y.sum(0), X, X),
    program("copy of a sum to rows", "refused", lambda x: aten.copy(torch.zeros(3, D), x.sum((0, 1))), X),
    program("two sums", "sum", lambda x, y: x.sum(0) - y.sum(0), X, X),
    program("a sum and a constant", "refused", lambda x, w: x.sum(0) + w, X, shared(T, D)),
    program("shape ops on a sum", "sum", lambda x: F.pad(x.sum(0).t()[1:], (1, 0)).flip(0).reshape(-1), X),
    program("running sum of a sum", "refused", lambda x: x.sum(0).cumsum(0), X),
    program("sum where a condition holds", "sum", lambda x, w: torch.where(w > 0, x.sum(0), 0.0), X, shared(T, D)),
    program("sum or a constant", "refused", lambda x, w: torch.where(w > 0, x.sum(0), 1.0), X, shared(T, D)),
    program("sum plus zero", "sum", lambda x: aten.add.Tensor(x.sum(0), 0), X),
    program("sum plus one", "refused", lambda x: aten.add.Tensor(x.sum(0), 1), X),
    program("sum in another type", "sum", lambda x: torch.ops.prims.convert_element_type(x.sum(0), torch.float64), X),
    program("rounded sum", "refused", lambda x: x.sum(0).to(torch.int64), X),
    program("joined with zeros", "sum", lambda x: torch.cat([x.sum(0), x.new_zeros(1, D)]), X),
    program("joined with a constant", "refused", lambda x: torch.cat([x.sum(0), x.new_ones(1, D)]), X),
    # batched ops
    program("convolution", 0, lambda x, w: F.conv1d(x, w), X, shared(2, T, 3)),
    program("kernel from samples", "refused", lambda x, w: F.conv1d(x, w), shared(2, T, 8), samples(B, T, 3)),
    program(
        "convolution backward",
        (0, "sum", "sum"),
        lambda g, x, w: aten.convolution_backward(g, x, w, [2], [1], [0], [1], False, [0], 1, [True, True, True]),
        samples(B, 2, 3),
        X,
        shared(2, T, 3),
    ),
    program("max pool", 0, lambda x: F.max_pool2d(x, 2), samples(B, 2, 4, 4)),
    program("average pool", 0, lambda x: F.avg_pool2d(x, 3), samples(B, 2, 6, 6)),
    program("adaptive pool", 0, lambda x: F.adaptive_avg_pool2d(x, 3), samples(B, 2, 7, 7)),
    program("pool over samples", "refused", lambda x: F.max_pool2d(x, 2), samples(2, 2, B, 4)),
    program("pool of a plane over samples", "refused", lambda x: F.avg_pool2d(x, 3, 1, 1), samples(2, B, 4)),
    program("max pool of a plane over samples", "refused", lambda x: F.max_pool2d(x, 3, 1, 1), samples(2, B, 4)),
    program("pool of a volume over samples", "refused", lambda x: F.avg_pool3d(x, 3, 1, 1), samples(2, B, 4, 4)),
    program("max pool of a volume over samples", "refused", lambda x: F.max_pool3d(x, 3, 1, 1), samples(2, B, 4, 4)),
    program("pool of planes without channels", 0, lambda x: F.max_pool2d(x, 3, 1, 1), samples(B, 4, 4)),
    program(
        "grid sample",
        0,
        lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False),
        samples(B, 2, 4, 4),
        samples(B, 3, 3, 2),
    ),
    program(
        "attention", 0, F.scaled_dot_product_attention, samples(B, 2, T, D), samples(B, 2, T, D), samples(B, 2, T, D)
    ),
    program(
        "average pool backward",
        0,
        lambda g, x: aten.avg_pool2d_backward(g, x, [2, 2], [2, 2], [0, 0], False, True, None),
        samples(B, 2, 2, 2),
        samples(B, 2, 4, 4),
    ),
    program(
        "grid sample backward",
        (0, 0),
        lambda g, x, p: aten.grid_sampler_2d_backward(g, x, p.tanh(), 0, 0, False, [True, True]),
        samples(B, 2, 3, 3),
        samples(B, 2, 4, 4),
        samples(B, 3, 3, 2),
    ),
    program("upsample", 0, lambda x: F.interpolate(x, scale_factor=2), samples(B, 2, 4, 4)),
    program("upsample bilinearly", 0, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), samples(B, 2, 4, 4)),
    program("reflection", 0, lambda x: F.pad(x, (1, 1), mode="reflect"), X),
    program(
        "masked index",
        0,
        lambda x, m, i: aten._unsafe_masked_index(x, m > 0, [None, i], 0.0),
        X,
        samples(B, 2, 1),
        shared(2, integers=T),
    ),
    program(
        "masked index by its own mask",
        0,
        lambda x, m, i: aten._unsafe_masked_index(x, m > 0, [None, i], 0.0),
        samples(B, T),
        samples(B, 2),
        shared(2, integers=T),
    ),
    *FLAT,
    *INDEXING,
    *MATRICES,
    *ROWS,
]


def name_of(found: Provenance) -> Any:
    match found:
        case PerSample(axis=axis):
            return axis
        case SummedOverSamples():
            return "sum"
        case Shared():
            return "shared"
        case Refused(origin=origin, reason=reason):
            assert isinstance(origin, Node)
            assert isinstance(reason, str)
            return "refused"
        case SamplePosition():
            return "position"


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)
def test_the_claim_is_as_expected_and_true(case: Program) -> None:
    found = analyse(case.function, case.inputs, NUM_SAMPLES)
    assert tuple(map(name_of, found)) == case.expected
    for i, claim in enumerate(found):
        check_claim(claim, case, i)


def check_claim(claim: Provenance, case: Program, index: int) -> None:
    """Change the values of one sample, and see that the result changes nowhere else."""
    generator = torch.Generator().manual_seed(1)
    base = [spec.draw(NUM_SAMPLES, generator) for spec in case.inputs]
    other = [spec.draw(NUM_SAMPLES, generator) for spec in case.inputs]
    before = run(case, base, index)
    for b in range(NUM_SAMPLES):
        changed = with_sample(case.inputs, base, other, b)
        after = run(case, changed, index)
        match claim:
            case Shared():
                assert torch.equal(before, after)
            case PerSample():
                size = before.shape[claim.axis]
                outer, inner = int(claim.outer), int(claim.inner)
                assert size == outer * NUM_SAMPLES * inner
                rest = [i for i in range(size) if i // inner % NUM_SAMPLES != b]
                torch.testing.assert_close(
                    before.index_select(claim.axis, torch.tensor(rest)),
                    after.index_select(claim.axis, torch.tensor(rest)),
                    rtol=0,
                    atol=0,
                )
            case SummedOverSamples():
                others = [
                    with_sample(case.inputs, values, other, c)
                    for values in (base, changed)
                    for c in range(NUM_SAMPLES)
                    if c != b
                ]
                half = len(others) // 2
                for without, with_it in zip(others[:half], others[half:], strict=True):
                    step = run(case, with_it, index) - run(case, without, index)
                    torch.testing.assert_close(step, after - before)


def run(case: Program, values: list[Tensor], index: int) -> Tensor:
    torch.manual_seed(0)
    results = case.function(*values)
    result = (results if isinstance(results, (tuple, list)) else (results,))[index]
    return result.to(torch.float64)


def with_sample(specs: tuple[Input, ...], base: list[Tensor], other: list[Tensor], b: int) -> list[Tensor]:
    """`base`, with the values of sample b from `other`."""
    changed = []
    for spec, x, y in zip(specs, base, other, strict=True):
        if spec.axis is None:
            changed.append(x)
            continue
        x = x.clone()
        x.select(spec.axis, b).copy_(y.select(spec.axis, b))
        changed.append(x)
    return changed
