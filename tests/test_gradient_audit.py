"""The loop over the samples agrees with the module, and finds a planted wrong gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, DPModule, audit_gradients, dp_compile
from dpgraph.lower import compiler

UNCHECKED = CompileOptions(backend="eager", verify="never")


class Model(nn.Module):
    """Dropout, and a parameter that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.first(x).sin(), 0.5, self.training)
        return self.second(self.first(h).sin())


def make(**arguments) -> DPModule:
    torch.manual_seed(0)
    return dp_compile(Model(), "full", options=UNCHECKED, **arguments)


def inputs() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3)


def test_exact_with_a_loss_inside_a_mean_and_groups():
    def losses(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")

    module = make(loss_fn=losses, loss_reduction="mean", grouping="per-layer", clipping="abadi", max_grad_norm=0.1)
    audit = audit_gradients(module, {"x": inputs()}, targets=(torch.tensor([0, 1, 1, 0]),))
    assert audit.exact, str(audit)
    assert audit.loop_dtype == torch.float64
    assert {e.parameter for e in audit.errors} == set(dict(module.named_parameters()))
    assert "all exact" in str(audit)


def test_the_model_is_left_as_it_was(monkeypatch):
    module, x = make(), inputs()
    module(x).sum().backward()
    before = {name: p.grad.clone() for name, p in module.named_parameters()}
    captured, state = len(module._calls.compiler.rewritings), torch.get_rng_state()
    assert audit_gradients(module, (x,)).exact
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert module.original_module.training
    assert len(module._calls.compiler.rewritings) == captured
    assert all(torch.equal(p.grad, before[name]) for name, p in module.named_parameters())


def test_a_planted_wrong_gradient_is_named_first(monkeypatch):
    original = compiler.compile_eager

    def compile_wrongly(*args, **kwargs):
        compiled = original(*args, **kwargs)

        def run(*given):
            (bias,) = (i for i, x in enumerate(given) if isinstance(x, Tensor) and x.shape == (2,))
            scaled = [x * 1 if i == bias else x for i, x in enumerate(given)]
            scaled[bias].register_hook(lambda g: g * 1.01)
            return compiled(*scaled)

        return run

    monkeypatch.setattr(compiler, "compile_eager", compile_wrongly)
    audit = audit_gradients(make(), (inputs(),))
    assert not audit.exact
    assert [e.parameter for e in audit.errors if not e.exact] == ["second.bias"]
    assert audit.errors[0].parameter == "second.bias"
    assert audit.errors[0].error == pytest.approx(0.01, rel=1e-3)
    assert "WRONG 1.0e-02" in str(audit)
    assert "1 of 4 parameters are wrong" in str(audit)


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(ArgumentError, match="was given a Linear"):
        audit_gradients(nn.Linear(3, 2), (inputs(),))
    with pytest.raises(ArgumentError, match="axis 1"):
        audit_gradients(make(), (inputs(),), output_dim=1)


def test_what_is_rounded_to_half_precision_is_no_error():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).bfloat16()
    assert audit_gradients(
        dp_compile(model, "full", options=CompileOptions(backend="eager")), (torch.randn(5, 6).bfloat16(),)
    ).exact
