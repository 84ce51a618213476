"""Through Inductor: what it compiles wrongly is caught and named, random numbers are the same in both runs."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor import ir
from torch._inductor.lowering import lowerings
from torch._inductor.virtualized import ops

from dpgraph import CompileOptions, MiscompiledError, dp_compile
from dpgraph.gradients.dense import Dense
from dpgraph.gradients.registry import GRADIENT_RULES
from dpgraph.torch_compat import compile_fx
from tests.zoo.architectures import ZOO

aten = torch.ops.aten


class Drawing(nn.Module):
    """Dropout, noise, whole numbers, and an operator that Inductor leaves to torch on CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 6)
        self.outer = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.inner(x).sin(), 0.3, training=True)
        h = h * torch.randint(1, 4, h.shape, device=h.device) + torch.randn_like(h)
        return self.outer(h).sin()


def test_random_numbers_are_the_same_in_both_runs():
    module = dp_compile(Drawing(), "full")
    x = torch.randn(5, 3)
    torch.manual_seed(3)
    module(x).sum().backward()
    (validation,) = module.validations
    assert validation.complete, str(validation)
    assert validation.rounding == ()
    assert len(module._calls.compiler.checks[0]._draws.seeds) == 3
    checked = module.inner.weight.grad.clone()
    module.zero_grad()
    unchecked = dp_compile(module.original_module, "full", options=CompileOptions(verify="never"))
    torch.manual_seed(3)
    unchecked(x).sum().backward()
    torch.testing.assert_close(module.inner.weight.grad, checked, rtol=0, atol=0)


def test_an_operator_that_is_lowered_wrongly_is_named(monkeypatch):
    def lower_wrongly(x):
        load = x.make_loader()
        return ir.Pointwise.create(
            device=x.get_device(), dtype=x.get_dtype(), inner_fn=lambda i: ops.sin(load(i)), ranges=x.get_size()
        )

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            h = (x @ self.weight.T).cos()
            h = torch.erfc(h)
            return (h * 2).exp().sum(1)

    monkeypatch.setitem(lowerings, aten.erfc.default, lower_wrongly)
    with torch._inductor.config.patch(fx_graph_cache=False), pytest.raises(MiscompiledError) as caught:
        dp_compile(Model(), "full")(torch.randn(5, 3))
    assert "the first node that is compiled wrongly is erfc" in caught.value.what
    assert caught.value.place.line.code == "h = torch.erfc(h)"
    assert 'CompileOptions(backend="eager")' in caught.value.fix


def test_a_write_into_an_expanded_base_is_caught(monkeypatch):
    """The rule that parameters looked up by index once had: Inductor 2.13 lets all samples share one buffer."""

    def share_one_buffer(zeros, indices, values, accumulate=False):
        (rows,) = (x.stack if hasattr(x, "stack") else x for x in indices)
        own = torch.arange(values.stack.shape[0], device=rows.device)
        table = zeros.expand(values.stack.shape[0], *zeros.shape)
        return Dense(table.index_put((own, rows), values.stack, accumulate))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(5))
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            return (x * self.weight).sum(1) * self.table[index]

    monkeypatch.setitem(GRADIENT_RULES, aten.index_put.default, share_one_buffer)
    model, inputs = Model(), (torch.randn(5, 3), torch.tensor([1, 0, 1, 2, 4]))
    private = dp_compile(model, "full")
    refusal = outcome(lambda: private(*inputs).sum().backward())
    if refusal is None:  # it is compiled rightly
        expected = copy.deepcopy(model)
        dp_compile(expected, "full", options=CompileOptions(backend="eager"))(*inputs).sum().backward()
        torch.testing.assert_close(model.table.grad, expected.table.grad)
    else:
        assert "the gradient of table" in refusal.what
        assert "index_put" in str(refusal.place.op)


def outcome(run: Callable[[], object]) -> MiscompiledError | None:
    try:
        run()
    except MiscompiledError as error:
        return error
    return None


def test_memory_that_is_overwritten_under_another_name_is_caught(monkeypatch):
    """As AOTAutograd donates: attention has draws that, without dropout, excuse nothing."""
    monkeypatch.setattr(compile_fx, "keep_what_is_saved_twice", lambda backward: "as torch donates")
    (architecture,) = (a for a in ZOO if a.name.startswith("Segformer"))
    model, drawn = architecture.build(), architecture.batch(4).to(torch.float64)
    with pytest.raises(MiscompiledError, match="sequence_reduction"):
        architecture.losses(dp_compile(model, "full"), drawn)
