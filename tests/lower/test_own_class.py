"""The module looks as the model does: to `len`, indexing and iteration, and to those who ask for a signature."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import Tensor, nn

from dpgraph import DPModule, dp_compile
from tests.models.transformers_zoo import transformer
from tests.programs.exact import EAGER, squares


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


class Stack(nn.ModuleList):
    """A list of modules with a forward."""

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        for module in self:
            x = module(x)
        return x * scale


class Table(nn.ModuleDict):
    """Modules by name, and a forward that takes whatever it is given."""

    def forward(self, x: Tensor, /, *rest: Tensor, **options: object) -> Tensor:
        return self["last"](self["first"](x)) + len(rest) + len(options)


@pytest.mark.parametrize("kind", [sequential, lambda: Stack(sequential())], ids=["Sequential", "ModuleList"])
def test_a_sequence_of_modules(kind):
    model = kind()
    module = dp_compile(model, "full", options=EAGER)
    assert len(module) == 3
    assert module[0] is model[0]
    assert module[-1] is model[2]
    assert type(module[:2]) is type(model)
    assert [type(m) for m in module[:2]] == [nn.Linear, nn.Tanh]
    assert all(a is b for a, b in zip(module, model, strict=True))
    assert model[1] in module
    assert nn.Tanh() not in module
    with pytest.raises(IndexError):
        module[3]
    module(torch.randn(2, 4)).sum().backward()
    assert module[0].weight.grad is not None


def test_modules_by_name():
    model = Table({"first": nn.Linear(4, 3), "last": nn.Linear(3, 2)})
    module = dp_compile(model, "full", options=EAGER)
    assert "first" in module
    assert list(module) == ["first", "last"] == list(module.keys())
    assert module["last"] is model["last"]


def test_another_model_has_none_of_it():
    module = dp_compile(nn.Linear(4, 3), "full", options=EAGER)
    assert module
    for use in (len, iter, lambda m: m[0]):
        with pytest.raises(TypeError):
            use(module)
    assert not any(hasattr(type(module), name) for name in ("__len__", "__iter__", "__getitem__", "__contains__"))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_it_is_a_dp_module_and_so_are_its_copies(duplicate):
    module = dp_compile(sequential(), "full", loss_fn=_loss, options=EAGER)
    for each in (module, duplicate(module)):
        assert isinstance(each, DPModule)
        assert type(each).__name__ == "DPModule"
        assert len(each) == 3
        assert list(inspect.signature(each.forward).parameters) == ["input", "targets"]


def _loss(y: Tensor, scale: Tensor) -> Tensor:
    return squares(y) * scale


@pytest.mark.parametrize("build", [sequential, lambda: Stack(sequential()), lambda: Table(), lambda: nn.LSTM(2, 2)])
def test_the_signature_is_that_of_the_model(build):
    model = build()
    expected = inspect.signature(model.forward)
    model.register_parameter("more", nn.Parameter(torch.zeros(1)))
    module = dp_compile(model, "full", options=EAGER)
    assert inspect.signature(module.forward) == expected
    assert list(inspect.signature(type(module).forward).parameters)[1:] == list(expected.parameters)


def test_the_targets_of_a_loss_are_in_it():
    model = Table({"first": nn.Linear(4, 3), "last": nn.Linear(3, 2)})
    found = inspect.signature(dp_compile(model, "full", loss_fn=_loss, options=EAGER).forward)
    assert list(found.parameters) == ["x", "rest", "targets", "options"]
    assert found.parameters["targets"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_model_that_takes_targets_itself_keeps_them():
    class Own(nn.Linear):
        def forward(self, input: Tensor, targets: Tensor | None = None) -> Tensor:
            return super().forward(input) if targets is None else super().forward(input) * targets

    for loss in (None, _loss):
        module = dp_compile(Own(4, 3), "full", loss_fn=loss, options=EAGER)
        assert list(inspect.signature(module.forward).parameters) == ["input", "targets"]


def test_trainers_see_the_columns_and_labels():
    generic = pytest.importorskip("transformers.utils.generic")
    model = transformer("bert").build(torch.float32)
    module = dp_compile(model, "bitfit", also_train="classifier.*", options=EAGER)
    # transformers.Trainer._set_signature_columns_if_needed
    columns = list(inspect.signature(module.forward).parameters)
    assert columns == list(inspect.signature(model.forward).parameters)
    assert {"input_ids", "attention_mask", "labels"} <= set(columns)
    assert generic.find_labels(type(module)) == generic.find_labels(type(model)) == ["labels"]
    assert generic.can_return_loss(type(module)) == generic.can_return_loss(type(model))


def test_compiled_by_torch_it_still_runs():
    module = dp_compile(sequential(), "full", options=EAGER)
    x = torch.randn(2, 4)
    torch.testing.assert_close(torch.compile(module, backend="eager")(x), module(x))


def test_no_instance_outlives_its_use():
    class Watched(nn.Linear):
        gone = 0

        def __del__(self) -> None:
            Watched.gone += 1

    dp_compile(Watched(4, 3), "full", options=EAGER)
    assert Watched.gone == 1
