"""What a user passes by mistake is named as that, and not as a graph break or a batch that is missing."""

import sys

import pytest
import torch
from torch import Tensor, nn

import dpgraph
import dpgraph.privacy
from dpgraph import ArgumentError, CaptureError, UnsoundProgramError, dp_compile, losses
from tests.programs.exact import EAGER


def private(model: nn.Module, **arguments) -> nn.Module:
    return dp_compile(model, "full", options=EAGER, **arguments)


class Words(nn.Module):
    """At most five words, by their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 4), nn.Embedding(5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.words(ids) + self.places.weight[: ids.shape[1]]).sum(1)


def wrong_features() -> None:
    private(nn.Linear(20, 3))(torch.randn(5, 21))


def wrong_channels() -> None:
    private(nn.Conv2d(1, 3, 2))(torch.randn(5, 3, 4, 4))


def numbers_with_fractions() -> None:
    private(Words())(torch.randn(5, 3))


def labels_with_fractions() -> None:
    private(nn.Linear(4, 3), loss_fn=losses.cross_entropy)(torch.randn(5, 4), targets=(torch.randn(5),))


def too_many_words() -> None:
    private(Words())(torch.randint(10, (5, 7)))


WRONG = {
    wrong_features: "21] X [20, 3]",
    wrong_channels: "expected input[s",
    numbers_with_fractions: "torch.float32 instead",
    labels_with_fractions: "torch.float32",
    too_many_words: "The size of tensor a (7) must match the size of tensor b (5)",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_batch_that_the_model_does_not_take(call):
    with pytest.raises(CaptureError, match="an operator does not take what it is given: RuntimeError: ") as caught:
        call()
    assert WRONG[call] in caught.value.what
    assert "\n" not in caught.value.what
    assert not caught.value.what.endswith(("\"'", "')", '")'))
    assert "original_module" in caught.value.fix
    assert "graph break" not in str(caught.value)
    assert caught.value.place.line is not None


def test_arguments_that_the_model_does_not_have():
    module = private(nn.Linear(4, 3))
    for args, kwargs in (((torch.randn(5, 4), torch.randn(5, 2)), {}), ((), {}), ((), {"y": torch.randn(5, 4)})):
        with pytest.raises(ArgumentError, match="cannot be called like that") as caught:
            module(*args, **kwargs)
        assert "input" in caught.value.fix
    module(input=torch.randn(5, 4)).sum().backward()


def test_no_tensor_with_samples():
    with pytest.raises(ArgumentError, match="no input has a batch") as caught:
        private(Words())("five words")
    assert "pass a tensor" in caught.value.fix


def test_a_tensor_in_the_place_of_arguments():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    module = private(model)
    for call in (
        lambda: private(model, example_inputs=x),
        lambda: dpgraph.plan(model, x, mode="full", options=EAGER),
        lambda: dpgraph.audit_provenance(model, x),
        lambda: dpgraph.audit_gradients(module, x),
    ):
        with pytest.raises(ArgumentError, match="given as a Tensor") as caught:
            call()
        assert "(x,)" in caught.value.fix


def test_a_record_that_is_no_batch():
    with pytest.raises(UnsoundProgramError) as caught:
        private(nn.Linear(4, 3))(torch.randn(4))
    assert "x[None]" in caught.value.fix


def test_the_outputs_of_a_model_with_a_loss():
    module = private(nn.Linear(4, 3), loss_fn=losses.cross_entropy)
    with torch.no_grad(), pytest.raises(ArgumentError, match="0 targets") as caught:
        module(torch.randn(5, 4))
    assert "original_module" in caught.value.fix
    assert module.original_module(torch.randn(5, 4)).shape == (5, 3)


def test_a_loss_function_that_takes_a_mean():
    with pytest.raises(UnsoundProgramError) as caught:
        private(nn.Linear(4, 3), loss_fn=nn.functional.cross_entropy)(
            torch.randn(5, 4), targets=(torch.randint(3, (5,)),)
        )
    assert 'reduction="none"' in caught.value.fix


def test_accounting_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting.pld.privacy_loss_distribution", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dpgraph\[privacy\]'"):
        dpgraph.privacy.epsilon(sampling_probability=0.1, noise_multiplier=1.0, steps=10, delta=1e-5)
