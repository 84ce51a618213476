"""A call that would not run a private graph, or not the one that was proved, is an error by name."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from dpgraph import ArgumentError, CaptureError, CompileOptions, dp_compile
from tests.lower.delivering import Net, build, check, gradients, loss, rows
from tests.programs.exact import EAGER


class Around(nn.Module):
    """A module that holds a private one."""

    def __init__(self, q: nn.Module):
        super().__init__()
        self.q = q

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.q(x)


def force_eager(q, x):
    with torch.compiler.set_stance("force_eager"):
        return q(x)


def eager_on_recompile(q, x):
    with torch.compiler.set_stance("eager_on_recompile"):
        return q(torch.cat([x, x]).float())


def another_backend(q, x):
    with torch.compiler.set_stance(force_backend="eager"):
        return q(x)


def switched_off(q, x):
    with torch._dynamo.config.patch(disable=True):
        return q(x)


def switched_off_before(q, x):
    with torch._dynamo.config.patch(disable=True):
        return dp_compile(q.original_module, "full", options=EAGER)(x)


def exported(q, x):
    return torch.export.export(Around(q), (x,), strict=False)


def symbolically_traced(q, x):
    return torch.fx.symbolic_trace(q)(x)


def traced_by_proxies(q, x):
    return make_fx(lambda x: q(x))(x)


def traced_by_proxies_with_symbols(q, x):
    return make_fx(lambda x: q(x), tracing_mode="symbolic")(x)


def mapped(q, x):
    return torch.func.vmap(q)(torch.stack([x, x]))


def differentiated_by_func(q, x):
    values = {name: p.detach() for name, p in q.named_parameters()}
    return torch.func.grad(lambda p: loss(torch.func.functional_call(q, p, (x,))))(values)


DETOURS = (
    force_eager,
    another_backend,
    switched_off,
    switched_off_before,
    exported,
    symbolically_traced,
    traced_by_proxies,
    traced_by_proxies_with_symbols,
    mapped,
    differentiated_by_func,
)


@pytest.mark.parametrize("called_before", [False, True])
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_detours_are_refused_and_the_module_goes_on(backend, called_before):
    model, q = build(backend)
    if called_before:
        q(rows())
    for detour in DETOURS:
        with pytest.raises(CaptureError, match="private"):
            detour(q, rows())
        assert gradients(model) == [None] * 4, detour
    loss(q(rows())).backward()
    check(model, rows())


def test_a_first_call_that_is_eager_is_refused():
    model, q = build()
    with torch.compiler.set_stance("eager_then_compile"):
        with pytest.raises(CaptureError, match="no private graph"):
            q(rows())
        loss(q(rows())).backward()
    check(model, rows())


def test_falling_back_to_eager_is_refused():
    model, q = build()
    loss(q(rows())).backward()
    model.float()
    with pytest.raises(CaptureError, match="no private graph"):
        eager_on_recompile(q, rows())


def test_torch_jit_trace_is_refused():
    _, q = build()
    q(rows()).sum().backward()
    with pytest.raises((CaptureError, RuntimeError)):
        torch.jit.trace(Around(q), (rows(),))


def test_strict_export_is_refused():
    _, q = build()
    with pytest.raises(Exception, match=r"torch\.export|super"):
        torch.export.export(Around(q), (rows(),), strict=True)


@pytest.mark.parametrize("strict", [True, False])
def test_evaluation_may_be_exported(strict):
    model, q = build()
    with torch.no_grad():
        exported = torch.export.export(Around(q), (rows(),), strict=strict).module()
        torch.testing.assert_close(exported(rows()), 2 * model(rows()))


def test_compiling_around_the_module_still_works():
    model, q = build()

    @torch.compile(backend="eager")
    def step(x: Tensor) -> None:
        loss(q(x)).backward()

    for call in (lambda x: loss(torch.compile(q, backend="eager")(x)).backward(), step):
        model.zero_grad()
        call(rows())
        check(model, rows())


# Parameters that are others than when the model was compiled


class Tied(nn.Module):
    """Two layers of one shape."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def tie(model):
    model.b.weight = model.a.weight


def share_memory(model):
    model.b.weight.data = model.a.weight.data


def tie_modules(model):
    model.b = model.a


@pytest.mark.parametrize("change", [tie, share_memory, tie_modules])
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_parameters_that_become_one_are_refused(backend, change):
    model = Tied().double()
    q = dp_compile(model, "full", clipping="auto-v", options=CompileOptions(backend=backend))
    loss(q(rows())).backward()
    model.zero_grad()
    change(model)
    with pytest.raises(ArgumentError, match=r"became one .*(?s:.*)call dp_compile again") as caught:
        q(rows())
    assert caught.value.place.parameter.startswith("b.")
    assert all(p.grad is None for p in model.parameters())


def test_parameters_tied_from_the_start_and_untied_ones():
    model = Tied().double()
    tie(model)
    q = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    loss(q(rows())).backward()
    check(model, rows())
    model.b.weight = nn.Parameter(model.a.weight.detach().clone())
    with pytest.raises(ArgumentError, match=r"'b\.weight' requires grad"):
        q(rows())


def test_frozen_parameters_may_be_tied():
    model = Tied().double()
    q = dp_compile(model, "bitfit", clipping="auto-v", options=EAGER)
    tie(model)
    loss(q(rows())).backward()
    assert q.grad_norms.isfinite().all()


def test_a_parameter_that_was_frozen_later_is_refused():
    model, q = build()
    loss(q(rows())).backward()
    model.zero_grad()
    model.first.weight.requires_grad_(False)
    with pytest.raises(ArgumentError, match=r"'first\.weight'.*frozen"):
        q(rows())
    model.first.weight.requires_grad_(True)
    loss(q(rows())).backward()
    check(model, rows())


def test_a_parameter_that_was_added_later_is_refused():
    model, q = build()
    model.extra = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="'extra' requires grad"):
        q(rows())


def test_two_phases_on_one_model():
    model, q = build()
    loss(q(rows())).backward()
    model.zero_grad()
    biases = dp_compile(model, "bitfit", clipping="auto-v", options=EAGER)
    loss(biases(rows())).backward()
    assert [p.grad is None for p in model.parameters()] == [True, False, True, False]
    with pytest.raises(ArgumentError, match="frozen"):
        q(rows())
    model.zero_grad()
    whole = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    loss(whole(rows())).backward()
    check(model, rows())


def test_copies_of_a_model_stay_apart():
    model, q = build()
    twin = copy.deepcopy(model)
    assert isinstance(twin, Net)
    loss(twin(rows())).backward()
    loss(q(rows())).backward()
    check(model, rows())
