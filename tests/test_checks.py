"""Arguments that are no such numbers, names or flags are refused by name, wherever they are given."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, CompileOptions, dp_compile
from dpgraph.checks import require_count, require_positive, require_probability, require_share
from dpgraph.privacy import PoissonSampler, add_noise_on_step, calibrate_noise_multiplier, epsilon, split_batch


def compile_with(**arguments):
    model = nn.Linear(3, 2)
    return dp_compile(model, arguments.pop("mode", "full"), **arguments)


def noise_with(**arguments):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1.0)
    add_noise_on_step(optimizer, **{"noise_multiplier": 1, "sensitivity": 1, "expected_batch_size": 1, **arguments})


def accounted(**arguments):
    epsilon(**{"noise_multiplier": 1.0, "sampling_probability": 0.1, "steps": 10, "delta": 1e-5, **arguments})


def calibrated(**arguments):
    calibrate_noise_multiplier(
        **{"target_epsilon": 1.0, "sampling_probability": 0.1, "steps": 10, "delta": 1e-5, **arguments}
    )


NUMBERS = [True, "1", None, math.nan, math.inf, -1.0, torch.ones(2), 1j]
COUNTS = [True, "1", None, 1.0, -1, math.nan]
WORDS = [None, 3, "other", ["full"], b"full"]
ACCOUNTING = [
    ("noise_multiplier", NUMBERS),
    ("sampling_probability", [0, 2, *NUMBERS]),
    ("steps", COUNTS),
    ("delta", [0, 1, *NUMBERS]),
]
REFUSED = [
    (compile_with, "max_grad_norm", [0, *NUMBERS]),
    (compile_with, "max_samples", [0, *COUNTS]),
    (compile_with, "max_parts", [0, *COUNTS]),
    (compile_with, "mode", WORDS),
    (compile_with, "loss_reduction", WORDS),
    (compile_with, "add_biases", ["yes", 1, None]),
    (compile_with, "options", ["eager", {"backend": "eager"}, CompileOptions]),
    (compile_with, "also_train", [3, [3], None]),
    (CompileOptions, "memory_budget", [2, *NUMBERS]),
    *((CompileOptions, field, WORDS) for field in ("backend", "norm_strategy", "batch", "verify")),
    (noise_with, "noise_multiplier", NUMBERS),
    (noise_with, "sensitivity", [0, *NUMBERS]),
    (noise_with, "expected_batch_size", [0, *NUMBERS]),
    (lambda num_records: PoissonSampler(num_records, 0.5, 3), "num_records", [0, *COUNTS]),
    (
        lambda sampling_probability: PoissonSampler(10, sampling_probability, 3),
        "sampling_probability",
        [0, 2, *NUMBERS],
    ),
    (lambda steps: PoissonSampler(10, 0.5, steps), "steps", COUNTS),
    *((accounted, name, values) for name, values in ACCOUNTING),
    *((calibrated, name, values) for name, values in [("target_epsilon", [0, *NUMBERS]), *ACCOUNTING[1:]]),
    (lambda max_size: split_batch(torch.arange(3), max_size), "max_size", [0, *COUNTS]),
]


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [pytest.param(call, name, value, id=f"{name}={value!r}") for call, name, values in REFUSED for value in values],
)
def test_what_is_no_such_value_is_refused_by_its_name(call, name, value):
    with pytest.raises(ArgumentError, match=name) as caught:
        call(**{name: value})
    assert caught.value.fix


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_numpy_are_numbers(number):
    require_positive("x", number, why="")
    require_share("x", number, why="")
    require_probability("x", number, why="", may_be_one=False)
    require_count("n", np.int64(3), why="")
    assert compile_with(max_grad_norm=number).sensitivity == pytest.approx(0.5, rel=0.02)
