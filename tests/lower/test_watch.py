"""Parameters are watched as long as a gradient may come to them, and no longer; gradients have memory of their own."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from dpgraph import dp_compile
from dpgraph.deliveries import is_guarded
from tests.lower.delivering import build, check, loss, rows
from tests.programs.exact import EAGER


def test_the_watch_ends_with_the_last_module_and_a_backward_that_may_come():
    model, q = build()
    twin = dp_compile(model, "full", options=EAGER)
    total, alive = loss(q(rows())), weakref.ref(q)
    del q
    gc.collect()
    assert alive() is None
    del twin
    gc.collect()
    assert all(is_guarded(p) for p in model.parameters())
    total.backward()
    check(model, rows())
    del total
    gc.collect()
    assert not any(is_guarded(p) for p in model.parameters())
    assert not any(p._backward_hooks for p in model.parameters())
    loss(model(rows())).backward()


def test_two_modules_on_one_model_add_up():
    model, q = build()
    twin = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    loss(q(rows(5))).backward()
    loss(twin(rows(6))).backward()
    check(model, rows(5), rows(6))


def test_a_later_module_adds_to_what_an_earlier_one_left():
    model, q = build()
    loss(q(rows(5))).backward()
    del q
    gc.collect()
    loss(dp_compile(model, "full", clipping="auto-v", options=EAGER)(rows(6))).backward()
    check(model, rows(5), rows(6))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_are_not_watched_and_copies_of_modules_watch_their_own(copied):
    model, q = build()
    loss(q(rows())).backward()
    single = copied(model.last.weight)
    assert not is_guarded(single)
    assert not single._backward_hooks
    other = copied(model)
    loss(other(rows())).backward()
    assert not any(is_guarded(p) for p in other.parameters())
    twin = copied(q)
    assert all(is_guarded(p) for p in twin.parameters())
    twin.zero_grad()
    loss(twin(rows())).backward()
    check(twin.original_module, rows())
    check(model, rows())


def test_parameters_that_are_replaced_are_watched_and_the_old_ones_are_free():
    model, q = build()
    old = list(model.parameters())
    values = {name: p.detach() + 1 for name, p in model.named_parameters()}
    q.load_state_dict(values, assign=True)
    loss(q(rows())).backward()
    check(model, rows())
    assert all(is_guarded(p) for p in model.parameters())
    assert not any(is_guarded(p) for p in old)


def test_measuring_leaves_what_is_known_of_gradients():
    model, q = build()
    loss(q(rows())).backward()
    assert q.report.measured
    check(model, rows())
    loss(q(rows(5))).backward()
    check(model, rows(), rows(5))


def test_gradients_have_the_layout_of_their_parameters_and_memory_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv2d(4, 2, 2)).to(memory_format=torch.channels_last)
    q = dp_compile(model, "full", options=EAGER)
    q(torch.randn(5, 3, 6, 6)).square().sum().backward()
    for p in model.parameters():
        assert p.grad.stride() == p.stride()
        assert not p.grad.requires_grad
    assert len({p.grad.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))
