"""What forward assigns to objects that outlive the call: free of samples, or refused before anything is assigned."""

import dataclasses
import inspect
from collections import Counter, OrderedDict, defaultdict

import pytest
import torch
from torch import Tensor, nn

from dpgraph import CompileOptions, UnsoundProgramError, dp_compile
from tests.programs.exact import check_exact, squares

BACKENDS = ("eager", "inductor")
newest = torch.zeros(3)
OUTSIDE = [torch.ones(3)]


@dataclasses.dataclass
class Kept:
    """Made in forward, and assigned."""

    value: object


class OwnList(list):
    """A subclass, whose items Dynamo keeps within another variable."""


class Keeping(nn.Module):
    """A layer, and places where a program may keep something."""

    def __init__(self, program) -> None:
        super().__init__()
        self.program = program
        self.layer = nn.Linear(3, 3)
        self.inner = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(3))
        self.history, self.table, self.seen = [], {}, 0
        self.ordered, self.grown, self.counts, self.own = OrderedDict(), defaultdict(list), Counter(), OwnList()
        self.members: set[object] = set()

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.program(self, x, *others)


def an_attribute(m, x):
    m.last = m.layer(x)  # keeps
    return m.last


def an_attribute_of_a_part(m, x):
    m.inner.centre = x.mean(0)  # keeps
    return m.layer(x)


def an_attribute_by_name(m, x):
    m.largest = x.max()  # keeps
    return m.layer(x)


def an_attribute_of_the_class(m, x):
    type(m).shared = x.sum(0)  # keeps
    return m.layer(x)


def an_attribute_of_a_parameter(m, x):
    m.layer.weight.note = x.sum(0)  # keeps
    return m.layer(x)


def an_attribute_of_the_input(m, x):
    x.note = m.layer(x)  # keeps
    return m.layer(x)


def a_buffer(m, x):
    m.mean = 0.9 * m.mean + 0.1 * x.detach().mean(0)  # keeps
    return m.layer(x - m.mean)


def a_new_buffer(m, x):
    m.register_buffer("other", x.mean(0))  # keeps
    return m.layer(x)


def the_input(m, x):
    m.last = x  # keeps
    return m.layer(x)


def a_part_of_the_input(m, x):
    m.last = x[:, :2]  # keeps
    return m.layer(x)


def an_input_that_is_not_used(m, x, y):
    m.last = y  # keeps
    return m.layer(x)


def an_input_deep_in_containers(m, x, y):
    m.table["a"] = {"b": [1, (y,)]}  # keeps
    return m.layer(x)


def a_list(m, x):
    m.history.append(m.layer(x).detach())  # keeps
    return m.layer(x)


def a_list_anew(m, x):
    m.history.clear()
    m.history.extend(x.unbind(1))  # keeps
    return m.layer(x)


def a_dict(m, x):
    m.table["sum"] = m.layer(x).detach().sum()  # keeps
    return m.layer(x)


def an_ordered_dict(m, x):
    m.ordered["mean"] = m.layer(x).mean().item()  # keeps
    return m.layer(x)


def a_missing_item(m, x):
    m.grown["sums"].append(x.sum(0))  # keeps
    return m.layer(x)


def a_count(m, x):
    m.counts.update(mean=x.mean())  # keeps
    return m.layer(x)


def a_list_of_its_own_class(m, x):
    m.own.append(x.mean(0))  # keeps
    return m.layer(x)


def a_member_of_a_set(m, x):
    m.members.add(x.mean(0))  # keeps
    return m.layer(x)


def a_key(m, x):
    m.table[m.layer(x).sum(0)] = 1  # keeps
    return m.layer(x)


def a_key_deep_in_containers(m, x):
    m.history.append([{x.sum(0): 1}])  # keeps
    return m.layer(x)


def an_object_made_here(m, x):
    m.last = Kept(m.layer(x))  # keeps
    return m.layer(x)


def a_global_variable(m, x):
    global newest
    newest = x.sum(0)  # keeps
    return m.layer(x)


def a_tensor_from_outside(m, x):
    m.last = OUTSIDE[0]  # keeps
    return m.layer(x)


def a_number(m, x):
    m.seen = x.sum().item()  # keeps
    return m.layer(x)


def how_many_samples(m, x):
    m.seen += x.shape[0]  # keeps
    return m.layer(x)


def a_hook_on_a_parameter(m, x):
    m.layer.weight.register_hook(lambda g: 10 * g)
    return m.layer(x)


UNSOUND = (
    an_attribute, an_attribute_of_a_part, an_attribute_by_name, an_attribute_of_the_class, an_attribute_of_a_parameter,
    an_attribute_of_the_input, a_buffer, a_new_buffer, the_input, a_part_of_the_input, an_input_that_is_not_used,
    an_input_deep_in_containers, a_list, a_list_anew, a_dict, an_ordered_dict, a_missing_item, a_count,
    a_list_of_its_own_class, a_member_of_a_set, a_key, a_key_deep_in_containers, an_object_made_here, a_global_variable,
    a_number, how_many_samples, a_hook_on_a_parameter, a_tensor_from_outside,
)  # fmt: skip


def inputs_of(program):
    num_inputs = len(inspect.signature(program).parameters) - 1
    return [torch.randn(4, 3, dtype=torch.float64) for _ in range(num_inputs)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", UNSOUND, ids=lambda f: f.__name__)
def test_what_depends_on_samples_is_not_kept(program, backend):
    model = Keeping(program).double()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    module = dp_compile(model, "full", options=CompileOptions(backend=backend))
    with pytest.raises(UnsoundProgramError, match="outlives the call") as caught:
        module(*inputs_of(program))
    lines, first = inspect.getsourcelines(program)
    marked = [first + i for i, text in enumerate(lines) if "# keeps" in text]
    if marked:
        assert [caught.value.place.line.lineno] == marked, str(caught.value)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert (model.history, model.table, model.seen) == ([], {}, 0)
    assert not any((model.ordered, model.counts, model.own, model.members, *model.grown.values()))
    assert not hasattr(model, "last")
    assert torch.equal(newest, torch.zeros(3))


def a_counter(m, x):
    m.seen += 1
    return m.layer(x)


def counters_in_containers(m, x):
    m.ordered["calls"] = m.ordered.get("calls", 0) + 1
    m.counts["calls"] += 1
    m.members.add("called")
    return m.layer(x)


def a_buffer_of_constants(m, x):
    m.mean = torch.full_like(m.mean, 0.5) + m.inner.bias
    return m.layer(x) * m.mean


def what_is_made_of_parameters(m, x):
    m.table["norm"] = m.layer.weight.detach().norm()
    return m.layer(x)


def a_mask_of_the_length(m, x):
    m.mask = torch.ones(x.shape[1], dtype=x.dtype)
    return m.layer(x) * m.mask


def an_object_of_the_call(m, x):
    return Kept(m.layer(x)).value


@pytest.mark.parametrize(
    "program",
    [
        *(a_counter, counters_in_containers, a_buffer_of_constants, what_is_made_of_parameters),
        *(a_mask_of_the_length, an_object_of_the_call),
    ],
    ids=lambda f: f.__name__,
)
def test_what_is_free_of_samples_may_be_kept(program):
    model = Keeping(program).double()
    model.inner.requires_grad_(False)
    check_exact(model, *inputs_of(program), mode="trainable", clipping="abadi", loss=squares)


class Centred(nn.Module):
    """A loss that centres outputs by their running mean, as DINO's does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))

    def forward(self, outputs: Tensor) -> Tensor:
        self.centre = 0.9 * self.centre + 0.1 * outputs.detach().mean(0)
        return (outputs - self.centre).square().sum(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_keeps_nothing_of_samples_either(backend):
    module = dp_compile(nn.Linear(3, 3), "full", loss_fn=Centred(), options=CompileOptions(backend=backend))
    with pytest.raises(UnsoundProgramError, match=r"'loss_fn\.centre'"):
        module(torch.randn(4, 3))
