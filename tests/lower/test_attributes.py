"""What is set on the module that `dp_compile` returns is set on the model, and its own state is in nobody's way."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import dp_compile
from tests.programs.exact import EAGER, INDUCTOR

# As this module's own attributes are called.
OWN = ("_example", "_released", "_known", "_held", "_compiler")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


@pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)
def test_a_number_that_is_set_takes_effect(options):
    model = Scaled()
    module = dp_compile(model, "full", options=options)
    x = torch.randn(5, 4)
    for scale in (1.0, 3.0):
        module.scale = scale
        assert model.scale == module.scale == scale
        torch.testing.assert_close(module(x), model.layer(x) * scale)
        with torch.no_grad():
            torch.testing.assert_close(module(x), model.layer(x) * scale)


def test_modules_and_parameters_that_are_set_are_the_models():
    model = Scaled()
    module = dp_compile(model, "full", options=EAGER)
    module.layer.weight = nn.Parameter(torch.ones(3, 4))
    module.extra = nn.Linear(2, 2)
    assert model.extra is module.extra
    assert "extra.weight" in module.state_dict()
    with pytest.raises(AttributeError):
        module.sensitivity = 2.0
    module.training = False
    assert not module.training


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("kind", ["buffer", "parameter", "module"])
def test_names_of_the_model_are_the_models(name, kind):
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            match kind:
                case "buffer":
                    self.register_buffer(name, torch.ones(3))
                case "parameter":
                    self.register_parameter(name, nn.Parameter(torch.ones(3)))
                case _:
                    self.add_module(name, nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            own = getattr(self, name)
            return own(self.layer(x)) if kind == "module" else self.layer(x) * own

    model = Named()
    state, given = list(model.state_dict()), getattr(model, name)
    module = dp_compile(model, "full", options=EAGER)
    module(torch.randn(5, 4)).sum().backward()
    assert getattr(model, name) is given
    assert list(model.state_dict()) == list(module.state_dict()) == state
