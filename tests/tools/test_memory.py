"""The comparison of predicted and measured peaks runs, and says which are off."""

import io

import pytest
from rich.console import Console

from tools.bench.memory import MODELS, Row, compare, show


def test_a_model_is_predicted_and_measured():
    row = compare("perceptron", "bitfit", "eager")
    assert row.ratio == pytest.approx(1, abs=0.01)
    assert row.measured > 2**20


def test_what_is_off_is_marked():
    console = Console(file=io.StringIO(), width=100)
    show([Row("good", "full", 100, 104, 1.0), Row("bad", "full", 100, 120, 1.0)], "eager", console)
    lines = {line.split("│")[1].strip(): line for line in console.file.getvalue().splitlines() if "│" in line}
    assert "!" in lines["bad"]
    assert "!" not in lines["good"]


def test_there_are_ten_models():
    assert len(MODELS) == 10
