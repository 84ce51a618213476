"""Every dropout is on, each outcome has a name, and a run that was stopped goes on."""

import json

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, MiscompiledError
from tests.models.architecture import Architecture, Batch, classification_loss
from tools import false_alarms
from tools.false_alarms import DROPOUT, let_drop, main, run


class Dropping(nn.Module):
    """Drops out by a module and by a probability that the forward reads."""

    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(4, 3), nn.Dropout(0.0)
        self.attention_dropout, self.layerdrop = 0.0, 0.0

    def forward(self, x):
        return nn.functional.dropout(self.layer(self.dropout(x)), self.attention_dropout)


def named(name: str) -> Architecture:
    return Architecture(
        name, Dropping, lambda n: Batch({"x": torch.randn(n, 4)}, torch.arange(n) % 3), classification_loss
    )


def test_whatever_drops_out_is_turned_on_but_whole_layers():
    model = Dropping()
    assert let_drop(model) == 2
    assert model.dropout.p == model.attention_dropout == DROPOUT
    assert model.layerdrop == 0


@pytest.mark.inductor
@pytest.mark.slow
def test_a_step_in_bfloat16_with_dropout_passes():
    outcome = run(named("Dropping"), torch.bfloat16)
    assert outcome["outcome"] == "passed"
    assert outcome["dropouts"] == 2
    assert outcome["compared"] >= 3
    assert 0 < outcome["largest"] < outcome["tolerance"] or outcome["rounding"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(MiscompiledError, "ALARM"), (ArgumentError, "refused")],
)
def test_every_outcome_has_a_name(monkeypatch, error, outcome):
    def compile_nothing(*_, **__):
        raise error("gradients are off", why="w", fix="f")

    monkeypatch.setattr(false_alarms, "dp_compile", compile_nothing)
    found = run(named("Dropping"), torch.float32)
    assert found["outcome"] == outcome
    assert "gradients are off" in found["detail"]


def test_what_torch_does_not_run_is_no_outcome_of_ours():
    wrong = Architecture(
        "wrong", Dropping, lambda n: Batch({"x": torch.randn(n, 5)}, torch.arange(n) % 3), classification_loss
    )
    assert run(wrong, torch.float32)["outcome"] == "cannot run"


def test_a_run_that_was_stopped_goes_on_and_an_alarm_is_a_failure(monkeypatch, tmp_path, capsys):
    asked = []
    outcomes = {"first": "passed", "second": "ALARM"}

    def remember(architecture, dtype):
        asked.append((architecture.name, dtype))
        return {"outcome": outcomes[architecture.name]}

    monkeypatch.setattr(false_alarms, "run", remember)
    monkeypatch.setattr(false_alarms, "ZOO", (named("first"),))
    monkeypatch.setattr(false_alarms, "NIGHTLY", (named("second"),))
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"name": "first", "dtype": "float32", "outcome": "passed"}) + "\n", "utf-8")
    with pytest.raises(SystemExit, match="1"):
        main(None, "float32", log)
    assert asked == [("second", torch.float32)]
    assert "2 steps, 1 alarms: second float32" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["first"], "bfloat16", None)
