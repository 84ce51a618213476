"""What came frozen stays frozen, unless it is named; what dpgraph froze itself is free again in another phase."""

import copy
import gc
import json
import pickle

import pytest
import torch
from torch import Tensor, nn

import dpgraph
from dpgraph import ArgumentError, UnsoundProgramError, dp_compile
from dpgraph.freezing import CHANGED, required_by_author
from tests.models.run import Run
from tests.programs.exact import EAGER, check_exact


class WithTable(nn.Module):
    """A table of sinusoids that is a frozen parameter, as Whisper's, and a frozen bias."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.linspace(0, 6, 4).sin(), requires_grad=False)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.first.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.first(x) + self.table).tanh())


def build() -> WithTable:
    return WithTable().double()


def rows() -> Tensor:
    return torch.randn(5, 4, dtype=torch.float64)


def trained(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


FREE = {
    "full": ["first.weight", "last.weight", "last.bias"],
    "bitfit": ["last.bias"],
    "trainable": ["first.weight", "last.weight", "last.bias"],
}


@pytest.mark.parametrize("mode", FREE)
def test_what_came_frozen_stays_frozen(mode):
    model = build()
    before = copy.deepcopy(model.state_dict())
    module = check_exact(model, rows(), mode=mode)
    assert trained(model) == FREE[mode]
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert [name for name, x in model.state_dict().items() if not torch.equal(x, before[name])] == FREE[mode]


@pytest.mark.parametrize("mode", FREE)
def test_what_also_train_names_is_trained(mode):
    model = build()
    module = check_exact(model, rows(), mode=mode, also_train=["table", "first.bias"])
    assert set(trained(model)) == {*FREE[mode], "table", "first.bias"}
    assert module.report.freezing.unfrozen == ("table", "first.bias")


@pytest.mark.parametrize("first", ["bitfit", "full"])
def test_a_second_phase_trains_what_the_first_left_alone(first):
    model = build()
    check_exact(model, rows(), mode=first)
    module = check_exact(model, rows(), mode="full")
    assert trained(model) == FREE["full"]
    assert module.report.freezing.by_author == ("table", "first.bias")
    check_exact(model, rows(), mode="bitfit")
    assert trained(model) == FREE["bitfit"]
    check_exact(model, rows(), mode="full", also_train="table")
    check_exact(model, rows(), mode="full")
    assert trained(model) == FREE["full"]


def test_flags_that_the_user_sets_between_the_phases_count():
    model = build()
    dp_compile(model, "bitfit", options=EAGER)
    model.last.bias.requires_grad_(False)
    model.table.requires_grad_(True)
    model.first.bias.requires_grad_(True)
    check_exact(model, rows(), mode="full")
    assert trained(model) == ["table", "first.weight", "first.bias", "last.weight"]


def test_a_refusal_between_the_phases_changes_nothing():
    model = build()
    dp_compile(model, "bitfit", options=EAGER)
    flags = trained(model)
    mixing = Run(lambda m, x: m.inner(x).softmax(0), inner=model)
    with pytest.raises(UnsoundProgramError):
        dp_compile(mixing, "full", options=EAGER)(rows())
    assert trained(model) == flags
    with pytest.raises(ArgumentError):
        dp_compile(model, "full", max_grad_norm=-1.0, options=EAGER)
    check_exact(model, rows(), mode="full")
    assert trained(model) == FREE["full"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_of_a_module_know_whose_the_flags_are(duplicate):
    twin = duplicate(dp_compile(build(), "bitfit", options=EAGER))
    assert trained(twin) == FREE["bitfit"]
    check_exact(twin.original_module, rows(), mode="full")
    assert trained(twin) == FREE["full"]


def test_biases_that_were_added_are_free():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2)).double()
    model[0].weight.requires_grad_(False)
    check_exact(model, rows(), mode="bitfit", add_biases=True)
    check_exact(model, rows(), mode="full")
    assert trained(model) == ["0.bias", "1.weight", "1.bias"]


def test_a_model_in_which_everything_is_frozen_is_refused_with_the_way_out():
    model = nn.Linear(4, 3).requires_grad_(False)
    for mode in ("full", "bitfit"):
        with pytest.raises(ArgumentError) as caught:
            dp_compile(model, mode)
        assert "also_train" in caught.value.fix
        assert "requires_grad" in caught.value.fix


def test_a_frozen_complex_parameter_is_no_hindrance():
    model = Run(lambda m, x: m.layer(x) * m.turn.abs(), layer=nn.Linear(4, 3))
    model.turn = nn.Parameter(torch.ones(3, dtype=torch.complex64), requires_grad=False)
    dp_compile(model, "full", options=EAGER)(torch.randn(2, 4)).sum().backward()


def test_nothing_is_kept_of_models_that_are_gone():
    model = build()
    dp_compile(model, "bitfit", options=EAGER)
    assert any(p in CHANGED for p in model.parameters())
    before = len(CHANGED)
    assert not vars(model.first.weight)
    del model
    gc.collect()
    assert len(CHANGED) < before


def test_the_report_lists_them():
    model = build()
    module = dp_compile(model, "bitfit", also_train="first.bias", example_inputs=(rows(),), options=EAGER)
    report = module.report
    assert report.freezing.by_mode == ("first.weight", "last.weight")
    assert report.freezing.by_author == ("table",)
    assert report.freezing.unfrozen == ("first.bias",)
    text = str(report)
    assert "not trained in mode 'bitfit': 2 parameters" in text
    assert "requires_grad=False: 1 parameters (table)" in text
    assert "first.bias" in text
    assert json.loads(report.to_json())["freezing"]["by_author"] == ["table"]


def test_a_plan_of_a_second_phase():
    model = build()
    dp_compile(model, "bitfit", options=EAGER)
    flags = trained(model)
    planned = dpgraph.plan(model, (rows(),), mode="full", options=EAGER)
    assert planned.freezing.by_author == ("table", "first.bias")
    assert planned.trained_parameters == 4 * 4 + 4 * 2 + 2
    assert trained(model) == flags
    assert required_by_author(model.first.weight)
