"""What a user puts around the module, or gives it, is taken as it is meant or refused by name: no foreign errors."""

import threading

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dpgraph import ArgumentError, CaptureError, UnsupportedProgramError, dp_compile
from tests.programs.exact import EAGER, INDUCTOR

BACKENDS = pytest.mark.parametrize(
    "options", [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.inductor)], ids=["eager", "inductor"]
)


class Heads(nn.Module):
    """The number of heads is an argument, and divides a size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, heads: int) -> Tensor:
        return self.layer(x).view(x.shape[0], heads, 8 // heads).softmax(-1)


@BACKENDS
def test_a_number_that_varies_and_divides_a_size(options):
    model = Heads().double()
    module = dp_compile(model, "full", clipping="abadi", max_grad_norm=1e6, options=options)
    for heads in (1, 2, 4):
        x = torch.randn(5, 8, dtype=torch.float64)
        model.zero_grad()
        module(x, heads).square().sum().backward()
        found = [p.grad.clone() for p in model.parameters()]
        expected = torch.autograd.grad(model(x, heads).square().sum(), list(model.parameters()))
        torch.testing.assert_close(found, list(expected))


def test_a_batch_that_is_a_parameter():
    """Its gradient is that of any input, and no weight's."""
    model = nn.Linear(4, 3)
    module = dp_compile(model, "full", clipping="abadi", max_grad_norm=1e6, options=EAGER)
    for num_samples in (5, 3, 1):
        x = nn.Parameter(torch.randn(num_samples, 4))
        model.zero_grad()
        module(x).square().sum().backward()
        expected = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
        torch.testing.assert_close([x.grad, *(p.grad for p in model.parameters())], list(expected))


def test_an_array_of_numpys_is_refused_by_name():
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, weights: object) -> Tensor:
            return self.layer(x) * torch.as_tensor(weights)

    module, x = dp_compile(Weighted(), "full", options=EAGER), torch.randn(5, 4)
    with pytest.raises(UnsupportedProgramError, match=r"'weights' is an array of numpy's"):
        module(x, numpy.ones((5, 1), "float32"))
    module(x, torch.ones(5, 1)).sum().backward()


def test_a_frozen_parameter_of_eight_bits_before_the_others():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn), requires_grad=False)
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale.float()

    module = dp_compile(Scaled(), "full", options=EAGER)
    module(torch.randn(5, 4)).sum().backward()
    assert module.grad_norms.dtype == torch.float32


def test_a_script_module_is_refused():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        model = torch.jit.script(nn.Linear(4, 3))
    with pytest.raises(ArgumentError, match="ScriptModule"):
        dp_compile(model, "full")


def test_a_counter_of_operators_is_refused_and_the_module_goes_on():
    module, x = dp_compile(nn.Linear(4, 3), "full", options=EAGER), torch.randn(5, 4)
    with FlopCounterMode(display=False), pytest.raises(CaptureError, match="FlopCounterMode"):
        module(x)
    with FlopCounterMode(display=False) as counter:
        module.original_module(x)
    assert counter.get_total_flops() == 2 * 5 * 4 * 3
    module(x).sum().backward()


def test_one_call_at_a_time():
    """What comes while a call is under way is refused at once, before and after the first call."""
    model = nn.Linear(4, 3)
    module, x = dp_compile(model, "full", options=EAGER), torch.randn(5, 4)
    for _ in range(2):
        with module._calls._one_call, pytest.raises(ArgumentError, match="another call of it is under way"):
            module(x)
        assert model.weight.grad is None
        module(x).sum().backward()
        model.zero_grad()


def test_threads_that_take_turns_by_chance():
    """Calls from several threads are exact or refused."""
    model = nn.Linear(4, 3)
    module = dp_compile(model, "full", options=EAGER, example_inputs=(torch.randn(5, 4),))
    outputs: list[tuple[Tensor, Tensor]] = []
    strange: list[BaseException] = []

    def call(num_samples: int) -> None:
        for _ in range(20):
            x = torch.randn(num_samples, 4)
            try:
                outputs.append((module(x), model(x)))
            except ArgumentError:
                continue
            except BaseException as error:  # noqa: BLE001  it is looked at below
                strange.append(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in (2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not strange
    assert outputs
    for found, expected in outputs:
        torch.testing.assert_close(found, expected)
