"""The experiment and the analysis say the same of the programs of the soundness list."""

import pytest
import torch
from torch import nn

from dpgraph import ArgumentError, CompileOptions, audit_provenance, dp_compile
from tests.models.transformers_zoo import transformer
from tests.soundness.programs import PAIRS
from tests.soundness.test_soundness import make

# How many samples there are, and the place of a sample, do not change when a sample is replaced.
UNSEEN = (
    "number of samples",
    "count of the samples",
    "place in the batch",
    "places of all",
    "row of a table for each place",
    "the first place padded",
    "softmax over the batch of noise",
    "place",
    "positions of two samples",
    # the length that one sample decides is not always another one's neighbour's
    "the longest of the batch",
    "behind the longest",
    "cut at the longest",
    "how many values are different",
    "number of the batch as the number of classes",
)
SEEN = [p for p in PAIRS if not any(words in p.name for words in UNSEEN)]


def batch(pair) -> torch.Tensor:
    torch.manual_seed(5)
    return torch.randn(6, *pair.shape, dtype=torch.float64)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_sound_twins_show_no_influence(pair):
    audit = audit_provenance(make(pair.sound, pair.parts), (batch(pair),))
    assert audit.sound, str(audit)
    assert audit.num_samples == 6
    assert audit.num_compared > 0


def test_most_unsound_programs_can_be_seen_by_experiment():
    assert len(SEEN) >= 40


@pytest.mark.parametrize("pair", SEEN, ids=str)
def test_unsound_programs_show_one(pair):
    model = make(pair.unsound, pair.parts)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    audit = audit_provenance(model, (batch(pair),))
    assert not audit.sound
    assert audit.influences[0].change > 1e-9
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_a_compiled_module_and_a_transformer_with_dropout():
    architecture = transformer("bert", dropout=0.5)
    model = architecture.build(torch.float32)
    module = dp_compile(model, "bitfit", options=CompileOptions(backend="eager"))
    audit = audit_provenance(module, architecture.batch(4).inputs)
    assert audit.sound, str(audit)
    assert "none moved" in str(audit)


def test_batch_dims_and_output_dim():
    x = torch.randn(3, 5, 4)
    layer = nn.GRU(4, 4, batch_first=False)
    assert audit_provenance(layer, (x,), batch_dims=1, output_dim=1).sound
    assert not audit_provenance(layer, (x,)).sound
    model = nn.Bilinear(4, 3, 2)
    assert audit_provenance(model, {"input1": torch.randn(5, 4), "input2": torch.randn(5, 3)}).sound


def test_values_that_become_infinite_are_an_influence():
    class Exploding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.where((x > 2).any(), torch.inf, 1.0)

    x = torch.full((4, 2), 0.5)
    x[1] = 3
    audit = audit_provenance(Exploding(), (x,))
    assert [(i.sample, i.on, i.change) for i in audit.influences] == [(1, "output 0", torch.inf)]


@pytest.mark.parametrize("num_samples", [0, 1])
def test_one_sample_has_no_others(num_samples):
    with pytest.raises(ArgumentError, match="at least two"):
        audit_provenance(nn.Linear(4, 2), (torch.randn(num_samples, 4),))
