"""The report is read off the graphs: what is trained, what the forward saves, what a step sends."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from dpgraph import CompileOptions, dp_compile
from dpgraph.report.report import Report
from dpgraph.torch_compat import storage_of
from tests.models.transformers_zoo import transformer

EAGER = CompileOptions(backend="eager")


def report_of(mode: str, model: nn.Module, *inputs: torch.Tensor, **arguments) -> Report:
    return dp_compile(model, mode, options=EAGER, **arguments, example_inputs=inputs).report


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def test_what_a_perceptron_saves():
    """Its products' inputs are x, which is alive anyway, and tanh's result [B, 16], which tanh's own backward needs."""
    report = report_of("bitfit", perceptron(), torch.randn(5, 8))
    assert (report.trained_parameters, report.all_parameters) == (20, 8 * 16 + 16 + 16 * 4 + 4)
    assert report.gradients.compiled == 20 * 4
    assert report.optimizer_state.compiled == 2 * 20 * 4
    for saved in (report.saved_activations, report.saved_without_recomputation):
        assert saved.total.full == saved.total.compiled == 5 * 16 * 4
        assert dict(saved.by_module) == {"1": saved.total}


def test_inputs_of_products_are_saved_for_weights_alone():
    """ReLU's backward needs a mask of its result; only the weight's gradient needs what is added to that."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.second(torch.sin(h) @ torch.ones(16, 16))

    full = report_of("full", Added(), torch.randn(5, 8)).saved_without_recomputation
    bitfit = report_of("bitfit", Added(), torch.randn(5, 8)).saved_without_recomputation
    product = 5 * 16 * 4
    assert full.total.full >= bitfit.total.compiled + product
    assert bitfit.total.full == full.total.full


def test_training_biases_alone_saves_less_of_a_transformer():
    architecture = transformer("bert")
    batch = architecture.batch(4)
    model = architecture.build(torch.float32)
    report = dp_compile(model, "bitfit", options=EAGER, example_inputs=dict(batch.inputs)).report
    saved = report.saved_without_recomputation
    assert saved.total.ratio > 1.15
    assert sum(c.full for c in saved.by_module.values()) == saved.total.full
    assert report.saved_activations.total.full <= saved.total.full
    assert any(name.startswith("bert.encoder.layer.0.") for name in saved.by_module)
    assert report.gradients.ratio > 10
    assert report.trained_share < 0.1


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
@pytest.mark.parametrize("mode", ["full", "bitfit"])
def test_what_autograd_holds_after_a_forward_is_what_is_reported(mode, backend):
    """Queries, keys and values are parts of one product: to keep one of them is to keep it all."""
    architecture = transformer("gpt2")
    batch = architecture.batch(4)
    module = dp_compile(architecture.build(torch.float32), mode, options=CompileOptions(backend=backend))
    outputs = module(**batch.inputs)
    inputs = (*batch.inputs.values(), module._released.probe)
    alive = {storage_of(x) for x in (*module.parameters(), *module.buffers(), *inputs)}
    saved = outputs.logits.grad_fn.saved_tensors
    held = {storage_of(x): x.untyped_storage().nbytes() for x in saved if storage_of(x) not in alive}
    reported = module.report.saved_activations
    assert reported.total.compiled == sum(held.values()) > 0
    assert sum(sizes.compiled for sizes in reported.by_module.values()) == reported.total.compiled


def test_it_prints_as_a_table_and_as_json():
    report = report_of("bitfit", perceptron(), torch.randn(5, 8))
    stated = json.loads(report.to_json())
    assert stated["saved_activations"]["total"] == {"full": 320, "compiled": 320}
    assert stated["trained_share"] == pytest.approx(20 / 212)
    console = Console(file=io.StringIO(), width=100)
    console.print(report)
    for text in (str(report), console.file.getvalue()):
        for part in ("bitfit: 20 of 212 parameters", "saved activations", "all-reduce a step", "320 B"):
            assert part in text


def test_sizes_are_those_of_the_newest_capture():
    small = report_of("full", perceptron(), torch.randn(5, 8)).saved_activations.total.compiled
    torch._dynamo.reset()
    large = report_of("full", perceptron(), torch.randn(50, 8)).saved_activations.total.compiled
    assert large == 10 * small
