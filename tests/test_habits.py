"""What people do around training: checkpointing, mixed precision, evaluation, generation, copies, moves."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpgraph import CaptureError, DPModule, dp_compile
from tests.models.architecture import Architecture, Batch
from tests.models.layers import rows
from tests.models.run import Run
from tests.models.transformers_zoo import transformer
from tests.oracle import group_names, per_sample_gradients
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER

f64 = torch.float64


def check_step(
    architecture: Architecture, module: DPModule, batch: Batch, oracle: nn.Module, tolerance: float = 1e-10
) -> None:
    """One step of `module` against the loop over the samples through `oracle`, which has the same weights."""
    module.zero_grad()
    architecture.losses(module, batch).sum().backward()
    found = {name: p.grad.double() for name, p in module.named_parameters() if p.requires_grad}
    wide = batch.to(f64)
    samples = per_sample_gradients(
        oracle, lambda twin, b: architecture.losses(twin, wide.sample(b)).sum(), batch.num_samples
    )
    expected = samples.clipped_sum(group_names(list(found), "flat"), "auto-s", 1.0)
    total = torch.sqrt(sum(g.square().sum() for g in expected.values()))
    # a parameter without gradient (the bias of keys) is rounding noise in low precision: errors are of the whole
    errors = {name: (found[name] - g).norm() / total for name, g in expected.items()}
    assert max(relative_errors(found, expected).values()) <= tolerance or tolerance > 1e-4, errors
    assert max(errors.values()) <= tolerance, errors


# Checkpointing


@pytest.mark.parametrize(("name", "reentrant"), [("gpt2", False), ("gpt2", True), ("bert", False)])
def test_gradient_checkpointing(name, reentrant):
    """What is compiled is the same for both kinds: the graph has one backward, which no kind enters again."""
    architecture = transformer(name)
    model, plain = architecture.build(), architecture.build()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    check_step(architecture, dp_compile(model, "full", options=EAGER), architecture.batch(3).to(f64), plain)


def test_biases_under_gradient_checkpointing():
    """A hook of transformers makes the outputs of frozen embeddings require grad, which no graph can hold."""
    architecture = transformer("gpt2")
    model, plain = architecture.build(), architecture.build()
    batch = architecture.batch(3).to(f64)
    model.gradient_checkpointing_enable()
    with pytest.raises(CaptureError, match="disable_input_require_grads"):
        dp_compile(model, "bitfit", options=EAGER)(**batch.inputs)
    model.disable_input_require_grads()
    check_step(architecture, dp_compile(model, "bitfit", options=EAGER), batch, plain)


# Precision


@pytest.mark.parametrize(("name", "how"), [("gpt2", "autocast"), ("vit", "autocast"), ("llama", "bfloat16")])
def test_low_precision(name, how):
    """Close to the gradients in float64, whose clipping it keeps; norms are float32."""
    architecture = transformer(name)
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    model = architecture.build(dtype)
    module, batch = dp_compile(model, "full", options=EAGER), architecture.batch(3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        check_step(architecture, module, batch, model, tolerance=8 * torch.finfo(torch.bfloat16).eps)
    assert module.grad_norms.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_layers_of_several_dtypes():
    model = Run(
        lambda m, x: m.norm(m.single(m.low(x.bfloat16()).float()).double()),
        low=nn.Linear(4, 4).bfloat16(),
        single=nn.Linear(4, 4),
        norm=nn.LayerNorm(4).double(),
    )
    x = torch.randn(5, 4)
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    module(x).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    assert [g.dtype for g in found] == [torch.promote_types(p.dtype, torch.float32) for p in model.parameters()]
    model.zero_grad()
    expected = [torch.zeros_like(p, dtype=f64) for p in model.parameters()]
    for b in range(len(x)):
        gradients = torch.autograd.grad(model(x[b : b + 1]).square().sum(), list(model.parameters()))
        norm = torch.sqrt(sum(g.double().square().sum() for g in gradients))
        torch.testing.assert_close(module.grad_norms[b].double(), norm, rtol=1e-5, atol=0)
        for total, g in zip(expected, gradients, strict=True):
            total += g.double() / norm
    for p, g, e in zip(model.parameters(), found, expected, strict=True):
        assert (g.double() - e).norm() <= 2 * max(torch.finfo(p.dtype).eps, torch.finfo(torch.float32).eps) * max(
            1.0, e.norm()
        )


# Evaluation and generation


def test_switching_between_training_and_evaluation():
    architecture = transformer("distilbert", dropout=0.3)
    model = architecture.build()
    module, batch = dp_compile(model, "bitfit", options=EAGER), architecture.batch(3).to(f64)
    assert not torch.equal(module(**batch.inputs).logits, module(**batch.inputs).logits)
    module.eval()
    check_step(architecture, module, batch, model)
    for no_gradients in (torch.no_grad, torch.inference_mode):
        with no_gradients():
            torch.testing.assert_close(module(**batch.inputs).logits, model(**batch.inputs).logits)
    module.train()
    assert not torch.equal(module(**batch.inputs).logits, module(**batch.inputs).logits)


def test_generation_between_steps():
    architecture = transformer("gpt2")
    model = architecture.build()
    module, batch = dp_compile(model, "full", options=EAGER), architecture.batch(3).to(f64)
    check_step(architecture, module, batch, model)
    module.eval()
    ids, settings = batch.inputs["input_ids"][:, :3], {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    torch.testing.assert_close(module.generate(ids, **settings), model.generate(ids, **settings))
    check_step(architecture, module.train(), batch, model)


# Copies and moves


def reload(module: DPModule) -> DPModule:
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    return torch.load(stored, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), reload])
def test_copies_train_by_themselves(copied: Callable[[DPModule], DPModule]):
    architecture = transformer("distilbert")
    model = architecture.build()
    module, batch = dp_compile(model, "bitfit", options=EAGER), architecture.batch(3).to(f64)
    twin = copied(module)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in module.parameters()}
    check_step(architecture, twin, batch, model)
    assert all(p.grad is None for p in model.parameters())


def test_moving_between_dtypes_and_devices():
    architecture = transformer("distilbert")
    model = architecture.build(torch.float32)
    module, batch = dp_compile(model, "full", options=EAGER), architecture.batch(3)
    check_step(architecture, module, batch, model, tolerance=2e-5)
    check_step(architecture, module.double(), batch.to(f64), model)
    values = copy.deepcopy(model.state_dict())
    module.to("cpu", torch.float32).load_state_dict(values, assign=True)
    check_step(architecture, module, batch.to(f64), model)


def test_parameters_of_the_model_may_stand_in_the_loss():
    model = nn.Linear(4, 4).double()

    def loss_fn(y: Tensor, target: Tensor) -> Tensor:
        return (y - target).square().sum(1) + 0.1 * model.weight.square().sum()

    module = dp_compile(model, "full", clipping="auto-v", loss_fn=loss_fn, options=EAGER)
    x = rows(3, 4)
    module(x, targets=(x,)).sum().backward()
    found = model.weight.grad.clone()
    expected = torch.zeros_like(found)
    for b in range(3):
        loss = loss_fn(model(x[b : b + 1]), x[b : b + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected += gradients[0] / torch.sqrt(sum(g.square().sum() for g in gradients))
    torch.testing.assert_close(found, expected)
