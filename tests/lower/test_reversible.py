"""Biases are added where there is a place for one, and taken back; what is taken back can be done again."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, CaptureError, CompileOptions, DPGraphError, dp_compile
from tests.lower.delivering import gradients
from tests.programs.exact import EAGER


class Scale(nn.Module):
    """A weight of any kind, and a place for a bias that it does not have."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point())
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


WEIGHTS = {"a number": torch.tensor(2.0), "whole numbers": torch.ones(4, dtype=torch.int8)}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_beside_which_no_bias_can_stand_get_none(weight):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), Scale(weight))
    module = dp_compile(model, "bitfit", add_biases=True, options=EAGER)
    module(torch.randn(5, 4)).sum().backward()
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight"]
    assert model[0].bias.grad is not None


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_a_model_without_a_place_for_a_bias_is_as_it_was(weight):
    model = Scale(weight)
    with pytest.raises(ArgumentError, match="trains no parameter"):
        dp_compile(model, "bitfit", add_biases=True, options=EAGER)
    assert list(model.state_dict()) == ["weight"]


class Picky(nn.Module):
    """A model with an error of its own for texts that are too long, a branch on data for one length, and no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False, dtype=torch.float64)
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 8:
            raise ValueError("too long")
        if x.shape[1] == 5 and x.sum() > 0:
            return self.layer(x)
        return self.layer(x) * self.scale


def flags(model: nn.Module) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("mode", ["full", "bitfit"])
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_an_error_at_the_first_call_is_not_the_last_word(mode, backend):
    """A wrong batch does not end a training that has not begun; until it has, the model is as it was."""
    model = Picky()
    before, fresh = flags(model), dp_compile(deepcopy(model), mode, add_biases=True, also_train="scale", options=EAGER)
    module = dp_compile(model, mode, add_biases=True, also_train="scale", options=CompileOptions(backend=backend))
    bias = model.layer.bias
    wrong = {"a size": torch.randn(5, 3, 7), "a branch": torch.randn(5, 5, 4), "its own": torch.randn(5, 9, 4)}
    for batch in (*wrong.values(), *wrong.values()):
        with pytest.raises((DPGraphError, ValueError)):
            module(batch.double())
        assert flags(model) == before
        assert model.layer.bias is None
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    for trained in (module, fresh):
        trained(x).square().sum().backward()
    torch.testing.assert_close(module.grad_norms, fresh.grad_norms)
    torch.testing.assert_close(gradients(module), gradients(fresh))
    assert model.layer.bias is bias


def test_an_error_after_the_first_call_leaves_the_training_on():
    module = dp_compile(Picky(), "full", options=EAGER)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    module(x)
    trained = flags(module)
    with pytest.raises((CaptureError, ValueError)):
        module(torch.randn(5, 9, 4, dtype=torch.float64))
    assert flags(module) == trained
    module(x).sum().backward()
    assert module.num_nonfinite == 0


def withdrawn(mode: str = "bitfit", **arguments) -> tuple[nn.Module, nn.Module]:
    """A model and its private module, of which the first call failed."""
    model = Picky()
    module = dp_compile(model, mode, options=EAGER, **arguments)
    with pytest.raises(CaptureError):
        module(torch.randn(5, 3, 7, dtype=torch.float64))
    return model, module


@pytest.mark.parametrize("copied", [deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_a_module_whose_first_call_failed(copied):
    _, module = withdrawn(add_biases=True)
    twin = copied(module)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    for each in (twin, module):
        each(x).square().sum().backward()
    torch.testing.assert_close(twin.layer.bias.grad, module.layer.bias.grad)


def test_a_model_that_was_cast_after_a_first_call_failed():
    model, module = withdrawn(add_biases=True)
    model.float()
    module(torch.randn(5, 3, 4)).sum().backward()
    assert model.layer.bias.dtype == torch.float32
    assert model.layer.bias.grad is not None


def test_what_is_frozen_after_a_first_call_failed_is_not_trained_in_silence():
    model, module = withdrawn("full")
    model.layer.weight.requires_grad_(False)
    with pytest.raises(ArgumentError, match="frozen or unfrozen after a first call"):
        module(torch.randn(5, 3, 4, dtype=torch.float64))
    assert not model.layer.weight.requires_grad


def test_a_first_call_that_is_interrupted():
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    model = Picky()
    before = flags(model)
    module = dp_compile(model, "full", options=EAGER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpgraph.lower.compiler.compile_eager", interrupt)
        with pytest.raises(KeyboardInterrupt):
            module(torch.randn(5, 3, 4, dtype=torch.float64))
    assert flags(model) == before
    with pytest.raises(ArgumentError, match="not captured yet"):
        _ = module.report
    module(torch.randn(5, 3, 4, dtype=torch.float64)).sum().backward()


def test_an_error_of_the_models_own_is_told():
    module = dp_compile(Picky(), "full", options=EAGER)
    for length in (9, 10):
        with pytest.raises(CaptureError, match=r"error of its own: ValueError\('too long'\)"):
            module(torch.randn(5, length, 4, dtype=torch.float64))
