"""A planted miscompilation of each kind is caught, and nothing of it is handed out."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from dpgraph import CompileOptions, DPModule, MiscompiledError, dp_compile
from dpgraph.capture.joint import JointGraph, Parameter
from dpgraph.lower import compiler
from dpgraph.validate.check import GraphCheck
from dpgraph.validate.interface import Interface
from tests.validate.planting import as_compiled, planted, replace_compiled

EAGER = CompileOptions(backend="eager", norm_strategy="ghost")


class EveryForm(nn.Module):
    """A table, a convolution, a product over positions, a norm; and a buffer that counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 3, 2)
        self.linear = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.conv(self.table(x).transpose(1, 2)).tanh()
        return self.norm(self.linear(h.transpose(1, 2))).sin().sum((1, 2))


FORMS = {"table.weight": "Rows", "conv.weight": "Convolved", "linear.weight": "Outer", "norm.weight": "Dense"}


def make() -> nn.Module:
    torch.manual_seed(0)
    return EveryForm().double()


def batch() -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 7, (5, 6))


class Captured:
    """One capture that all tests here check again, and the inputs of its graph."""

    def __init__(self) -> None:
        self.module = dp_compile(make(), "full", options=EAGER, grouping="per-param")
        (self.inputs,) = self.record_inputs(self.module)
        (self.check,) = self.module._calls.compiler.checks
        self.names = [n for n, _ in self.module.named_parameters()]

    @staticmethod
    def record_inputs(module: DPModule) -> list[Sequence[Any]]:
        found = []
        with pytest.MonkeyPatch.context() as patch:
            original = GraphCheck.__call__
            patch.setattr(GraphCheck, "__call__", lambda s, inputs: (found.append(inputs), original(s, inputs))[1])
            module(batch()).sum().backward()
        return found


@pytest.fixture(scope="module")
def captured() -> Captured:
    return Captured()


def refuse(captured: Captured, check: GraphCheck) -> MiscompiledError:
    """The error of a check, which leaves everything as it was, and raises it again."""
    before = [x.detach().clone() if isinstance(x, Tensor) else x for x in captured.inputs]
    state = torch.get_rng_state()
    with pytest.raises(MiscompiledError) as caught:
        check(captured.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(captured.inputs, before, strict=True) if isinstance(x, Tensor))
    with pytest.raises(MiscompiledError):
        check(captured.inputs)
    assert check.record is None
    return caught.value


def position(captured: Captured, parameter: str) -> int:
    return captured.check._captured.roles.index(Parameter(parameter))


def test_every_form_is_there_and_passes_without_a_plant(captured):
    for parameter, form in FORMS.items():
        assert captured.module.rewriting.forms[parameter] == (form,)
    (validation,) = captured.module.validations
    assert validation.complete
    assert validation.num_samples == 2
    assert {f"the gradient of {p}" for p in FORMS} < set(validation.compared)
    assert {"output 0", "the norms"} < set(validation.compared)
    assert captured.module.calls == 1
    again = replace_compiled(captured.check, as_compiled(captured.check._joint))
    again(captured.inputs)
    assert set(again.record.compared) == set(validation.compared)


@pytest.mark.parametrize("parameter", FORMS)
def test_a_weighted_sum_of_each_form(parameter, captured):
    at = position(captured, parameter)
    error = refuse(captured, planted(captured.check, lambda _, interface: interface.gradients[at]))
    assert error.what.partition("off: ")[2].startswith(f"the gradient of {parameter} (by 1.0e-02 of its norm);")
    assert error.place.parameter == parameter
    assert error.place.op


@pytest.mark.parametrize("parameter", FORMS)
def test_norms_of_each_form(parameter, captured):
    group = captured.names.index(parameter)
    name = captured.module.rewriting.norms[group]
    error = refuse(captured, planted(captured.check, lambda joint, _: joint.nodes[name]))
    assert "the norms" in error.what
    assert f"the gradient of {parameter}" in error.what


@pytest.mark.parametrize("group", range(3))
def test_clip_factors(group, captured):
    def weights(joint: JointGraph, _: Interface) -> Node:
        return joint.graph.find_nodes(op="call_function", target=torch.ops.dpgraph.computed_once.default)[group]

    error = refuse(captured, planted(captured.check, weights))
    assert re.search(r"off: the gradient of \S+ \(by 1.0e-02 of its norm\);", error.what)


def test_an_output(captured):
    assert "off: output" in refuse(captured, planted(captured.check, lambda _, i: i.outputs[0])).what


def test_a_graph_that_was_refused_is_not_tried_again(captured):
    check = planted(captured.check, lambda _, interface: interface.outputs[0])
    refuse(captured, check)
    check._compiled = captured.check._compiled
    with pytest.raises(MiscompiledError):
        check(captured.inputs)


def test_a_value_that_the_forward_saves(captured):
    """What the outputs are made of is right, and what the backward reads is not."""

    def saved(joint: JointGraph, interface: Interface) -> Node:
        tanh = joint.graph.find_nodes(op="call_function", target=torch.ops.aten.tanh.default)[0]
        with joint.graph.inserting_after(tanh):
            copy = joint.graph.call_function(torch.ops.aten.clone.default, (tanh,))
        copy.meta = {"val": tanh.meta["val"]}
        forward = ancestors(interface.outputs[0])
        tanh.replace_all_uses_with(copy, delete_user_cb=lambda user: user not in forward and user is not copy)
        return copy

    error = refuse(captured, planted(captured.check, saved))
    assert "the gradient of" in error.what
    assert "output" not in error.what


def ancestors(node: Node) -> set[Node]:
    return {node}.union(*(ancestors(x) for x in node.all_input_nodes))


def around(captured: Captured, change: Any) -> GraphCheck:
    """After the graph ran, `change` its inputs and outputs."""

    def run(*inputs: Any) -> Any:
        outputs = captured.check._compiled(*inputs)
        change(inputs, outputs)
        return outputs

    return replace_compiled(captured.check, run)


def counter(inputs: Sequence[Any]) -> Tensor:
    return next(x for x in inputs if isinstance(x, Tensor) and x.ndim == 0)


def test_a_buffer_that_the_forward_leaves_wrong(captured):
    error = refuse(captured, around(captured, lambda inputs, _: counter(inputs).add_(1e-3)))
    assert "calls_ after the forward" in error.what


def test_a_buffer_that_the_backward_writes(captured):
    def write_later(inputs, outputs):
        outputs[0].register_hook(lambda _: counter(inputs).add_(1e-3) and None)

    error = refuse(captured, around(captured, write_later))
    assert "calls_ after the backward" in error.what
    assert "calls_ after the forward" not in error.what
    assert "arises in the graph as a whole" in error.what


def test_samples_that_the_backward_writes(captured):
    def write_later(inputs, outputs):
        ids = next(x for x in inputs if isinstance(x, Tensor) and x.dtype == torch.int64)
        outputs[0].register_hook(lambda _: clear(ids))

    def clear(x):
        x.data.zero_()  # a kernel counts no version up

    assert "after the backward" in refuse(captured, around(captured, write_later)).what


def test_a_parameter_that_is_written(captured):
    def write(inputs, _):
        inputs[position(captured, "table.weight")].detach()[0, 0] += 1

    check = around(captured, write)
    with pytest.raises(MiscompiledError, match=r"wrote into the parameters .*table"):
        check(captured.inputs)
    with torch.no_grad():
        captured.module.table.weight[0, 0] -= 1


def test_the_module_hands_nothing_out(monkeypatch):
    original = compiler.compile_eager

    def compile_wrongly(*args: Any, **kwargs: Any) -> Any:
        compiled = original(*args, **kwargs)
        return lambda *inputs: [x * 1.01 if x.ndim == 1 else x for x in compiled(*inputs)]

    monkeypatch.setattr(compiler, "compile_eager", compile_wrongly)
    model, x = nn.Linear(3, 1, bias=False).double(), torch.randn(4, 3, dtype=torch.float64)
    model.forward = lambda x: (x @ model.weight[0]).sin()
    private = dp_compile(model, "full", options=EAGER)
    with pytest.raises(MiscompiledError, match="output 0"):
        private(x)
    with pytest.raises(MiscompiledError, match="output 0"):
        private(x)
    assert model.weight.grad is None
    assert private.validations == ()
    unasked = dp_compile(model, "full", options=CompileOptions(backend="eager", verify="never"))
    unasked(x).sum().backward()
    assert unasked.validations == ()
