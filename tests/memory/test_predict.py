"""Predictions from real graphs: a perceptron that can be worked out by hand, and models against what they allocate."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import dpgraph
from dpgraph import ArgumentError, CompileOptions, dp_compile
from dpgraph.memory.predict import predict
from dpgraph.memory.timeline import Kind
from tests.models.transformers_zoo import make_gpt2

EAGER, INDUCTOR = CompileOptions(backend="eager"), CompileOptions(backend="inductor")
FLOAT = 4
MODES = ("full", "bitfit")


def perceptron(d: int = 64, h: int = 256, p: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, p))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def compiled(model: nn.Module, mode: str, options: CompileOptions, *inputs: torch.Tensor) -> dpgraph.DPModule:
    return dp_compile(model, mode, options=options, example_inputs=inputs)


def test_what_a_perceptron_keeps_by_hand():
    """tanh's result [B, h] is saved; output and its gradient are [B, p]; the gradients [p] and [h] come at the end."""
    memory = compiled(perceptron(), "bitfit", EAGER, torch.randn(10, 64)).report.memory
    kept = {kind: [b for b in memory.buffers if b.kind is kind] for kind in Kind}
    value = {memory.batch_symbol: 10}
    assert [b.size.subs(value) for b in kept[Kind.saved]] == [10 * 256 * FLOAT]
    assert [b.module for b in kept[Kind.saved]] == ["1"]
    assert 10 * 32 * FLOAT in [b.size.subs(value) for b in kept[Kind.output]]
    assert 10 * 32 * FLOAT in [b.size.subs(value) for b in kept[Kind.tangent]]
    gradients = sorted(int(b.size.subs(value)) for b in kept[Kind.gradient])
    assert {32 * FLOAT, 256 * FLOAT} <= set(gradients)
    assert memory.trained == (32 + 256) * FLOAT
    assert memory.parameters == (64 * 256 + 256 + 256 * 32 + 32) * FLOAT


MODELS = {
    "perceptron": (perceptron, (torch.zeros(10, 64),)),
    "convolutional": (convolutional, (torch.zeros(6, 3, 8, 8),)),
    "gpt2": (lambda: make_gpt2(width=64), (torch.zeros(8, 12, dtype=torch.long),)),
}


@pytest.mark.parametrize(("name", "mode"), [(n, m) for n in MODELS for m in MODES if (n, m) != ("gpt2", "full")])
def test_op_by_op_the_prediction_is_what_is_allocated(name, mode):
    make, inputs = MODELS[name]
    found = compiled(make(), mode, EAGER, *inputs).report.measured()
    assert found.ratio == pytest.approx(1, abs=0.01)


@pytest.mark.inductor
@pytest.mark.parametrize("mode", ["full", "bitfit"])
def test_through_inductor_the_prediction_is_close(mode):
    module = compiled(make_gpt2(width=64), mode, INDUCTOR, torch.zeros(8, 12, dtype=torch.long))
    assert module.report.measured().ratio == pytest.approx(1, abs=0.05)


@pytest.mark.inductor
def test_the_captured_graph_outlives_what_inductor_makes_of_it():
    inputs = (torch.randn(10, 64),)
    captured = [
        [str(n.target) for n in compiled(perceptron(), "bitfit", options, *inputs).graphs["captured"].nodes]
        for options in (EAGER, INDUCTOR)
    ]
    assert captured[0] == captured[1]


def test_another_batch_is_predicted_without_another_capture():
    small = compiled(perceptron(), "full", EAGER, torch.randn(10, 64)).report.memory
    torch._dynamo.reset()
    large = compiled(perceptron(), "full", EAGER, torch.randn(40, 64)).report.memory
    assert small.peak(40) == large.peak()


def test_measuring_leaves_gradients_norms_and_random_numbers_alone():
    module = compiled(perceptron(), "full", EAGER, torch.randn(10, 64))
    module(torch.randn(10, 64)).sum().backward()
    before = [p.grad.clone() for p in module.parameters()]
    norms, state = module.grad_norms.clone(), torch.get_rng_state()
    module.report.measured()
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), before, strict=True))
    assert torch.equal(module.grad_norms, norms)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_alternatives_are_ordered_as_they_should_be():
    """Holding every sample's gradients costs most, biases least."""
    report = compiled(perceptron(), "full", EAGER, torch.randn(16, 64)).report
    peaks = {name: timeline.peak() for name, timeline in report.alternatives.timelines.items()}
    assert len(peaks) == 5
    assert max(peaks, key=peaks.__getitem__) == "DP full, materialised"
    assert min(peaks, key=peaks.__getitem__) == "DP-BiTFiT"
    assert peaks["DP full, as planned"] == report.memory.peak()
    held = report.alternatives.timelines["DP full, materialised"].at_peak().by_kind[Kind.held.value]
    assert held > 15 * report.memory.parameters
    stated = json.loads(report.alternatives.to_json())
    assert stated["timelines"]["DP-BiTFiT"]["peak"] == peaks["DP-BiTFiT"]
    assert "DP-BiTFiT" in str(report.alternatives)


def test_groups_do_not_stand_in_the_way_of_the_alternatives():
    module = dp_compile(
        perceptron(), "full", grouping="per-layer", options=EAGER, example_inputs=(torch.randn(10, 64),)
    )
    assert not module.report.alternatives.refused


def test_a_model_without_biases_has_no_biases_to_train():
    model = nn.Linear(8, 4, bias=False)
    alternatives = compiled(model, "full", EAGER, torch.randn(3, 8)).report.alternatives
    assert list(alternatives.refused) == ["DP-BiTFiT"]


def test_the_report_states_the_memory():
    report = compiled(perceptron(), "full", EAGER, torch.randn(10, 64)).report
    stated = json.loads(report.to_json())["memory"]
    assert stated["peak"] == max(stated["live"]) == report.memory.peak()
    assert sum(stated["peak_by_kind"].values()) == sum(stated["peak_by_module"].values()) == stated["peak"]
    console = Console(file=io.StringIO(), width=100)
    console.print(report)
    for part in ("memory of a step of 10 samples", "saved activation", "backward"):
        assert part in console.file.getvalue()


def test_a_plan_is_the_report_of_the_model_itself():
    with torch.device("meta"):
        model, x = perceptron(), torch.empty(10, 64)
    planned = dpgraph.plan(model, (x,), mode="full", options=EAGER)
    report = compiled(perceptron(), "full", EAGER, torch.randn(10, 64)).report
    assert planned.memory.live() == report.memory.live()
    assert planned.largest_batch(2**30) == report.largest_batch(2**30)
    assert all(p.is_meta for p in model.parameters())
    with pytest.raises(ArgumentError, match="planned"):
        planned.measured()


def test_a_plan_allocates_nothing():
    """GPT-2 with tables of 40 million numbers, 160 MB, on meta tensors, tied weights as they are."""
    config = GPT2Config(n_layer=1, n_embd=768, n_head=12, use_cache=False, attn_pdrop=0.0)
    with torch.device("meta"):
        model, words = GPT2LMHeadModel(config), torch.zeros(4, 32, dtype=torch.long)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        report = dpgraph.plan(model, {"input_ids": words}, options=EAGER)
        assert report.memory.parameters > 160e6
    allocated = [e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert max(allocated, default=0) < 1e6


def test_a_plan_of_a_model_that_exists_leaves_it_alone():
    model = perceptron()
    flags = [p.requires_grad for p in model.parameters()]
    report = dpgraph.plan(model, {"input": torch.randn(4, 64)}, options=EAGER)
    assert report.memory.batch == 4
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_cannot_be_planned_for():
    with pytest.raises(ArgumentError, match="cuda"):
        dpgraph.plan(perceptron(), (torch.randn(10, 64),), device="cuda")


@pytest.mark.inductor
def test_norms_are_taken_as_early_as_they_can_be():
    """Put off to the end of the backward, they would hold what they are made of: 1.2 times the ordinary peak."""
    config = GPT2Config(n_layer=3, n_embd=128, n_head=2, n_positions=64, vocab_size=500, use_cache=False)
    ids = torch.zeros(8, 64, dtype=torch.long)
    report = dpgraph.plan(GPT2LMHeadModel(config), (ids,), mode="full", options=INDUCTOR)
    ordinary = predict(report.source.rewriting.stages["captured"], INDUCTOR)
    assert report.memory.peak() <= 1.1 * ordinary.peak()
