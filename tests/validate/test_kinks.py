"""Where a ReLU is of nearly zero, two compilations take different sides, and both are right."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from dpgraph import CompileOptions, MiscompiledError, dp_compile
from dpgraph.capture.joint import JointGraph
from dpgraph.validate.check import GraphCheck
from tests.validate.planting import as_compiled, planted, replace_compiled

aten = torch.ops.aten
FAR = 1000.0
ROUNDINGS = range(1000, 1050)


class Cancelling(nn.Module):
    """Returns its input with the rounding of numbers as large as `FAR`."""

    def forward(self, x: Tensor) -> Tensor:
        return x + FAR - FAR


def network() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(4):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), Cancelling(), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def captured() -> tuple[GraphCheck, Sequence[Any]]:
    """The check of the network's graph, which was not made yet, and the inputs for it."""
    torch.manual_seed(0)
    inputs: list[Sequence[Any]] = []
    module = dp_compile(network(), "full", options=CompileOptions(backend="eager"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphCheck, "__call__", lambda _, given: inputs.append(given))
        module(torch.randn(2, 3, 8, 8)).square().sum().backward()
    return module._calls.compiler.checks[0], inputs[0]


def test_a_relu_of_nearly_zero_is_no_alarm(captured):
    check, inputs = captured
    disputed = 0
    for rounding in ROUNDINGS:
        other = replace_compiled(check, as_compiled(check._joint, rounding=rounding))
        other(inputs)
        assert other.record is not None
        assert other.record.complete
        disputed += bool(other.record.rounding)
    assert disputed >= 3  # else the network shows nothing


def test_a_wrong_side_far_from_zero_is_one(captured):
    check, inputs = captured

    def first_mask(joint: JointGraph, _: object) -> Node:
        mask = next(n for n in joint.graph.nodes if n.target in (aten.le.Scalar, aten.gt.Scalar))
        values = mask.args[0]
        with joint.graph.inserting_after(mask):
            far = joint.graph.call_function(aten.gt.Scalar, (values, 2.5))
        with joint.graph.inserting_after(far):
            turned = joint.graph.call_function(aten.logical_xor.default, (mask, far))
        far.meta = turned.meta = {"val": mask.meta["val"]}
        mask.replace_all_uses_with(turned, delete_user_cb=lambda user: user is not turned)
        return turned

    wrong = check._joint.copy()
    first_mask(wrong, None)
    with pytest.raises(MiscompiledError, match="the gradient of"):
        replace_compiled(check, as_compiled(wrong))(inputs)


@pytest.mark.parametrize("parameter", ["the first", "the last"])
def test_a_gradient_that_is_one_percent_off_is_one(parameter, captured):
    check, inputs = captured

    def gradient(_: JointGraph, interface: Any) -> Node:
        found = [node for node in interface.gradients.values() if node is not None]
        return found[0 if parameter == "the first" else -1]

    with pytest.raises(MiscompiledError, match=r"by 1.0e-02 of its norm"):
        planted(check, gradient)(inputs)
