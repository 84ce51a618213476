"""How the arguments of a call reach the model and its loss, and which of them are batches."""

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, dp_compile
from tests.programs.exact import EAGER, check_exact

f64 = torch.float64


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.layer(x) * scale


class OwnLoss(nn.Module):
    """Losses [B] if it is given targets, else its prediction, as many published models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        y = self.layer(x)
        return y if targets is None else (y - targets).square().sum(1)


def test_arguments_by_position_by_keyword_and_constants():
    model = Scaled().double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = rows(5, 4)
    y = module(x, 2.0)
    torch.testing.assert_close(y, module(x=x, scale=2.0))
    torch.testing.assert_close(y, model(x, 2.0))


def test_inputs_that_all_samples_share():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.layer(x) @ table

    model = Shared().double()
    # as many rows as samples: a batch by its size, shared by declaration
    x, table = rows(3, 4), rows(3, 3)
    module = dp_compile(model, "full", clipping="auto-v", batch_dims={"table": None}, options=EAGER)
    check_exact(model, x, table, batch_dims=[0, None], clipping="auto-v", module=module)


def test_inputs_are_left_as_they_were_for_other_compilations():
    x = torch.randn(5, 4)
    x.note = "the user's"
    dp_compile(nn.Linear(4, 3), "full", options=EAGER)(x).sum().backward()
    assert vars(x) == {"note": "the user's"}
    plain = torch.compile(nn.Linear(4, 3), backend="eager", dynamic=False, fullgraph=True)
    assert plain(x).shape == (5, 3)


def test_batch_on_another_axis():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    check_exact(model, rows(3, 6, 4), batch_dims=1, output_axis=1, clipping="auto-v")


@pytest.mark.parametrize("by_name", [False, True])
def test_targets_of_the_models_own(by_name):
    model, x, targets = OwnLoss().double(), rows(5, 4), rows(5, 3)
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    losses = module(x, targets=targets) if by_name else module(x, targets)
    torch.testing.assert_close(losses, model(x, targets))
    check_exact(model, x, targets, clipping="auto-v", module=module)


def test_targets_of_the_models_own_beside_those_of_a_loss():
    model, x, targets, others = OwnLoss().double(), rows(5, 4), rows(5, 3), rows(5)
    module = dp_compile(
        model, "full", clipping="auto-v", loss_fn=lambda losses, weights: losses * weights, options=EAGER
    )
    torch.testing.assert_close(module(x, targets, targets=(others,)), model(x, targets) * others)


def test_a_name_after_any_number_of_positions_is_its_own():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, *more: Tensor, twice: bool = False) -> Tensor:
            y = self.layer(sum(more, x))
            return 2 * y if twice else y

    model = Summed().double()
    module = dp_compile(model, "full", options=EAGER)
    x, y, table = rows(5, 4), rows(5, 4), rows(1, 4)
    torch.testing.assert_close(module(x, y, twice=True), model(x, y, twice=True))
    shared = dp_compile(model, "full", batch_dims={"args[2]": None}, options=EAGER)
    torch.testing.assert_close(shared(x, y, table), model(x, y, table))


def test_batch_dims_may_name_what_a_call_leaves_out():
    module = dp_compile(OwnLoss().double(), "full", batch_dims={"x": 0, "targets": 0}, options=EAGER)
    module(rows(5, 4)).sum().backward()
    assert module.grad_norms.shape == (5,)
    unknown = dp_compile(OwnLoss().double(), "full", batch_dims={"X": 0}, options=EAGER)
    with pytest.raises(ArgumentError, match=r"'X', which this model does not take(.|\n)*'x', 'targets'"):
        unknown(rows(5, 4))


def test_one_tensor_has_one_batch_axis():
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.layer(x) @ y

    x = rows(4, 4)
    module = dp_compile(Product().double(), "full", batch_dims={"y": None}, options=EAGER)
    with pytest.raises(ArgumentError, match="the very tensor that is another input"):
        module(x, x)
    module(x, x.clone()).sum().backward()
    assert module.grad_norms.shape == (4,)
