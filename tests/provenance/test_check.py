"""What the check refuses beside gradients: buffers that hold anything of the batch, its size too."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import UnsoundProgramError, dp_compile
from dpgraph.capture.joint import JointGraph
from dpgraph.provenance.check import _check_gradient
from dpgraph.provenance.lattice import PerSample, Refused, Shared, SummedOverSamples
from tests.programs.exact import EAGER
from tests.provenance.analysed import B, analyse, samples, shared

aten = torch.ops.aten


class Counting(nn.Module):
    """A layer with a buffer that the forward writes to."""

    def __init__(self, write) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(()))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self.kept, x)
        return self.layer(x)


def run(write):
    return dp_compile(Counting(write), "full", options=EAGER)(torch.randn(5, 4))


@pytest.mark.parametrize(
    "write",
    [
        lambda kept, x: kept.mul_(x.shape[0]),
        lambda kept, x: kept.add_(x.shape[0]),
        lambda kept, x: kept.add_(x.sum()),
        lambda kept, x: kept.copy_(x.amax()),
    ],
    ids=["times the number of samples", "plus the number of samples", "sum", "largest"],
)
def test_a_buffer_that_holds_something_of_the_batch_is_refused(write):
    with pytest.raises(UnsoundProgramError, match="into 'kept'") as caught:
        run(write)
    assert caught.value.place.line is not None


def test_the_line_is_the_one_where_samples_meet():
    def write(kept, x):
        total = x.sum()
        kept.add_(total)

    with pytest.raises(UnsoundProgramError) as caught:
        run(write)
    assert "x.sum()" in caught.value.place.line.code


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (PerSample(0), "was not summed over the samples"),
        (Shared(), "no sample owns"),
        (SummedOverSamples(None, power=1), "to the power of 1, not of 0"),
    ],
)
def test_a_gradient_is_a_sum_over_the_samples_or_refused(found, match):
    graph = torch.fx.Graph()
    node = graph.placeholder("gradient")
    graph.output((node,))
    joint = JointGraph(graph, B, {}, "probe", {"weight": 0}, 0, (), 0, (), nn.Module())
    with pytest.raises(UnsoundProgramError, match=match):
        _check_gradient(joint, {node: found}, "weight", node, expected_power=0)


def test_a_buffer_of_its_own_is_kept():
    assert run(lambda kept, x: kept.mul_(2)).shape == (5, 4)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x @ x.t(), "multiplies every sample with every other"),
        (lambda x: x.flip(0), "reverses the order of the samples"),
        (lambda x: x.sum(0).cumsum(0), "sums over the samples, and combines it with single samples at a later op"),
    ],
)
def test_the_reason_says_what_the_op_does(function, reason):
    (found,) = analyse(function, [samples(B, 4)])
    assert isinstance(found, Refused)
    assert found.reason == reason


def test_the_gradients_of_a_kernel_of_the_samples_are_refused_for_it():
    def backward(g, x, w):
        return aten.convolution_backward(g, x, w, None, [1], [0], [1], False, [0], 1, [True, True, False])[:2]

    several = analyse(backward, [samples(2, B, 6), shared(2, 4, 8), samples(B, 4, 3)])
    assert {p.reason for p in several} == {"convolves with a kernel that depends on the samples"}


def test_rows_of_one_sample_are_not_written_into_those_of_another():
    def write(x, y):
        return aten.index_put(x.repeat_interleave(2, 0), [torch.arange(x.shape[0])], y)

    (found,) = analyse(write, [samples(B, 4), samples(B, 4)])
    assert found.reason == "writes to places of other samples"
