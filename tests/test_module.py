"""How the module behaves that takes the model's place."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, dp_compile
from tests.models.plain import MLP
from tests.models.transformers_zoo import transformer
from tests.oracle.comparison import relative_errors
from tests.programs.exact import EAGER, check_exact, squares

f64 = torch.float64


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64)


class WithBuffers(nn.Module):
    """Buffers of both kinds and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("dropped", torch.ones(3), persistent=False)
        self.note = "a plain attribute"

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.layer(x) * self.kept * self.dropped * scale

    def predict(self, x: Tensor) -> Tensor:
        return self.layer(x).argmax(-1)


# It is the model


def test_parameters_buffers_and_keys_are_those_of_the_model():
    model = WithBuffers()
    module = dp_compile(model, "full", options=EAGER)
    assert list(module.state_dict()) == list(model.state_dict()) == ["kept", "layer.weight", "layer.bias"]
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(p is q for p, q in zip(module.parameters(), model.parameters(), strict=True))
    assert all(b is c for b, c in zip(module.buffers(), model.buffers(), strict=True))
    assert [n for n, _ in module.named_children()] == ["layer"]
    assert module.layer is model.layer


def test_attributes_and_methods_of_the_model_are_reachable():
    module = dp_compile(WithBuffers(), "full", options=EAGER)
    assert module.note == "a plain attribute"
    assert module.predict(torch.randn(2, 4)).shape == (2,)
    with pytest.raises(AttributeError, match="absent"):
        _ = module.absent


def test_config_and_save_pretrained_are_reachable(tmp_path):
    architecture = transformer("bert")
    model = architecture.build(torch.float32)
    module = dp_compile(model, "bitfit", also_train="classifier.*", options=EAGER)
    assert module.config is model.config
    module.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_generate_runs_without_gradients():
    model = transformer("gpt2", masked=False).build(torch.float32)
    module = dp_compile(model, "full", options=EAGER)
    ids = torch.randint(3, 20, (2, 3))
    torch.testing.assert_close(
        module.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0),
        model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0),
    )


def test_weights_can_be_loaded_and_saved():
    module, other = dp_compile(mlp(), "full", options=EAGER), mlp()
    module.load_state_dict(other.state_dict())
    x = rows(5, 4)
    torch.testing.assert_close(module(x), other(x))
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    fresh = mlp()
    fresh.load_state_dict(torch.load(stored))
    torch.testing.assert_close(fresh(x), other(x))
    pickled = pickle.loads(pickle.dumps(module.state_dict()))
    copied = copy.deepcopy(module.state_dict())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(pickled[name], value)
        torch.testing.assert_close(copied[name], value)


@pytest.mark.parametrize("called_before", [False, True])
def test_a_deep_copy_trains_by_itself(called_before):
    model = mlp()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = rows(5, 4)
    if called_before:
        module(x).sum().backward()
        model.zero_grad()
    twin = copy.deepcopy(module)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in module.parameters()}
    squares(twin(x)).sum().backward()
    assert all(p.grad is None for p in module.parameters())
    squares(module(x)).sum().backward()
    for p, q in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_train_and_eval_reach_the_model():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    module = dp_compile(model, "full", options=EAGER)
    assert module.eval() is module
    assert not model.training
    assert not model[1].training
    x = torch.randn(3, 4)
    torch.testing.assert_close(module(x), model(x))
    module.train()
    assert model.training
    assert model[1].training


def test_moving_to_another_dtype():
    model = mlp()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    check_exact(model, rows(5, 4), clipping="auto-v", module=module)
    assert module.float() is module
    check_exact(model, torch.randn(5, 4), clipping="auto-v", module=module, tolerance=2e-5)


def test_without_gradients_the_model_just_runs():
    model = mlp()
    module = dp_compile(model, "full", options=EAGER)
    x = rows(5, 4)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y = module(x)
            torch.testing.assert_close(y, model(x))
            assert not y.requires_grad
    assert module._calls.compiler.rewritings == []
    # a program that could not be trained privately may still be evaluated
    mixing = dp_compile(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "full", options=EAGER)
    with torch.no_grad():
        assert mixing(torch.randn(5, 4)).shape == (5, 4)


def test_outputs_are_those_of_the_model():
    architecture = transformer("bert")
    model = architecture.build()
    module = dp_compile(model, "full", options=EAGER)
    batch = architecture.batch(4)
    found, expected = module(**batch.inputs), model(**batch.inputs)
    assert type(found) is type(expected)
    assert list(found.keys()) == list(expected.keys())
    torch.testing.assert_close(found.logits, expected.logits)


def test_parameters_that_are_not_trained_require_no_grad():
    model = mlp()
    module = dp_compile(model, "bitfit", also_train="2.*", options=EAGER)
    assert [n for n, p in module.named_parameters() if p.requires_grad] == ["0.bias", "2.weight", "2.bias"]


def test_example_inputs_capture_at_once():
    module = dp_compile(mlp(), "full", example_inputs=(rows(5, 4),), options=EAGER)
    assert list(module.graphs)
    module = dp_compile(WithBuffers(), "full", example_inputs={"x": torch.randn(5, 4)}, options=EAGER)
    assert list(module.graphs)


def test_norms_graphs_and_report_ask_for_a_backward_first():
    module = dp_compile(mlp(), "full", options=EAGER)
    for name in ("grad_norms", "num_nonfinite", "graphs", "report"):
        with pytest.raises(ArgumentError):
            getattr(module, name)


# The loss


def test_a_loss_in_the_graph():
    architecture = transformer("bert")
    model = architecture.build()
    batch = architecture.batch(4)
    module = dp_compile(model, "full", loss_fn=architecture.loss, clipping="auto-v", options=EAGER)
    losses = module(**batch.inputs, targets=(batch.labels,))
    assert losses.shape == (4,)
    torch.testing.assert_close(losses, architecture.losses(model, batch))
    losses.sum().backward()
    inside = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    outside = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    architecture.losses(outside, batch).sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    assert max(relative_errors(inside, expected).values()) < 1e-10


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("num_samples", [1, 4])
def test_a_mean_over_the_batch_is_undone(inside, num_samples):
    model, x = mlp(), rows(num_samples, 4)
    summed = check_exact(model, x, clipping="abadi", max_grad_norm=3.0)
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    arguments = {"clipping": "abadi", "max_grad_norm": 3.0, "loss_reduction": "mean", "options": EAGER}
    if inside:
        module = dp_compile(model, "full", loss_fn=squares, **arguments)
        module(x).mean().backward()
    else:
        module = dp_compile(model, "full", **arguments)
        squares(module(x)).mean().backward()
    torch.testing.assert_close(module.grad_norms, summed.grad_norms)
    found = {name: p.grad for name, p in model.named_parameters()}
    assert max(relative_errors(found, expected).values()) < 1e-12


def test_the_bound_holds_for_every_sample():
    for clipping in ("auto-s", "auto-v", "abadi"):
        for grouping in ("flat", "per-layer", "per-param"):
            model = mlp()
            module = dp_compile(model, "full", clipping=clipping, grouping=grouping, max_grad_norm=0.7, options=EAGER)
            assert 0.7 <= module.sensitivity <= 0.7 * 1.018
            for scale in (1e-4, 1.0, 1e4):
                model.zero_grad()
                squares(module(scale * rows(1, 4))).sum().backward()
                total = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
                assert total <= 0.7 * (1 + 1e-12)


def test_groups_have_norms_of_their_own():
    model = mlp()
    module = check_exact(model, rows(5, 4), grouping="per-layer", clipping="auto-v")
    assert module.grad_norms.shape == (5, 2)
    patterns = dp_compile(mlp(), "full", grouping={"first": "0.*", "rest": ["1.*", "2.*"]}, options=EAGER)
    patterns(rows(5, 4)).sum().backward()
    assert patterns.grad_norms.shape == (5, 2)


# Steps


def test_accumulation_over_physical_batches():
    model, x = mlp(), rows(8, 4)
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    squares(module(x)).sum().backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for part in x.split([3, 0, 1, 4]):
        squares(module(part)).sum().backward()
    parts = {name: p.grad for name, p in model.named_parameters()}
    assert max(relative_errors(parts, whole).values()) < 1e-12


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_step_on_what_the_module_gives(kind):
    model, x = mlp(), rows(8, 4)
    twin = copy.deepcopy(model)
    module = dp_compile(model, "bitfit", options=EAGER)
    optimizer = kind([p for p in module.parameters() if p.requires_grad], lr=0.05)
    before = squares(module(x)).sum().item()
    for _ in range(20):
        optimizer.zero_grad()
        squares(module(x)).sum().backward()
        optimizer.step()
    assert squares(module(x)).sum().item() < before
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q) == name.endswith("weight")


def test_an_optimizer_over_all_parameters_leaves_the_untrained_alone():
    model = mlp()
    module = dp_compile(model, "bitfit", options=EAGER)
    frozen = model[0].weight.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    squares(module(rows(5, 4))).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model[0].weight, frozen, rtol=0, atol=0)


# Numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clipping", ["auto-s", "auto-v", "abadi"])
def test_a_sample_that_is_not_finite_touches_no_other(bad, clipping):
    architecture = transformer("vit")
    model = architecture.build()
    torch.manual_seed(5)
    batch = architecture.batch(5).to(f64)
    module = dp_compile(model, "full", clipping=clipping, options=EAGER)
    good = [0, 1, 3, 4]
    images = batch.inputs["pixel_values"]
    architecture.loss(module(pixel_values=images[good]), batch.labels[good]).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert module.num_nonfinite == 0
    model.zero_grad()
    images[2, 0, 0, 0] = bad
    architecture.loss(module(pixel_values=images), batch.labels).sum().backward()
    assert module.num_nonfinite == 1
    assert module.grad_norms.isfinite().tolist() == [True, True, False, True, True]
    found = {name: p.grad for name, p in model.named_parameters()}
    assert max(relative_errors(found, expected).values()) < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = MLP.build(torch.float64).to(dtype)
    x = torch.randn(6, 5).to(dtype)
    twin = copy.deepcopy(model).double()
    exact = dp_compile(twin, "full", clipping="auto-v", options=EAGER)
    squares(exact(x.double())).sum().backward()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    squares(module(x)).sum().backward()
    assert module.grad_norms.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(module.grad_norms.double(), exact.grad_norms, rtol=8 * eps, atol=0)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad.dtype == torch.float32
        assert (p.grad.double() - q.grad).norm() <= 16 * eps * q.grad.norm()


def test_norms_of_half_precision_do_not_overflow():
    model = nn.Linear(4, 3).to(torch.float16)
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = torch.full((2, 4), 300.0, dtype=torch.float16)
    (module(x).sum() * 100).backward()
    assert module.num_nonfinite == 0
    torch.testing.assert_close(
        module.grad_norms, torch.full((2,), 100 * math.sqrt(3 * (4 * 300.0**2 + 1))), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("autocast", [torch.bfloat16])
def test_autocast(autocast):
    model = MLP.build(torch.float32)
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = torch.randn(6, 5)
    with torch.autocast("cpu", autocast):
        losses = squares(module(x).float())
    losses.sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    squares(module(x)).sum().backward()
    expected = {name: p.grad.double() for name, p in model.named_parameters()}
    assert max(relative_errors(found, expected).values()) < 0.1
    assert all(g.dtype == torch.float32 for g in found.values())
