"""The certificate says what was proved, about which graphs, and what was not."""

import json

import pytest
import torch
from torch import Tensor, nn

from dpgraph import ArgumentError, CompileOptions, dp_compile, losses, register_transfer
from dpgraph.provenance.registry import _TRANSFERS, REGISTERED

EAGER = CompileOptions(backend="eager")


def certified(model: nn.Module, *inputs: Tensor, **arguments):
    module = dp_compile(model, "full", options=EAGER, **arguments)
    module(*inputs)
    return module


def test_there_is_none_before_the_capture():
    with pytest.raises(ArgumentError):
        _ = dp_compile(nn.Linear(4, 3), "full", options=EAGER).certificate


def test_it_is_readable_and_json():
    module = certified(nn.Linear(4, 3), torch.randn(5, 4), grouping="per-param", max_grad_norm=2.0)
    certificate = module.certificate
    stated = json.loads(certificate.to_json())
    assert stated["sensitivity"] == module.sensitivity
    assert stated["num_groups"] == 2
    assert stated["trained"] == ["weight", "bias"]
    assert stated["clipping"] == "auto-s"
    assert stated["trusted"] == []
    assert stated["versions"]["torch"] == torch.__version__
    (graph,) = stated["graphs"]
    assert len(graph["digest"]) == 64
    assert graph["num_sites"] == 2
    for part in (graph["digest"][:16], "proved", "assumed", "trusted"):
        assert part in str(certificate)


def test_the_digest_is_of_the_program():
    def digest(model: nn.Module) -> str:
        torch._dynamo.reset()
        return certified(model, torch.randn(5, 4)).certificate.graphs[0].digest

    assert digest(nn.Linear(4, 3)) == digest(nn.Linear(4, 3))
    assert digest(nn.Linear(4, 3)) != digest(nn.Linear(4, 2))
    assert digest(nn.Sequential(nn.Linear(4, 3), nn.Tanh())) != digest(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))


def test_each_kind_of_call_adds_a_graph():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    module = certified(model, torch.randn(5, 4))
    assert len(module.certificate.graphs) == 1
    module.eval()
    module(torch.randn(7, 4))
    assert len(module.certificate.graphs) == 2
    assert len({g.digest for g in module.certificate.graphs}) == 2


def test_it_names_what_entered_and_what_was_left_changed():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("scale", torch.ones(3))
            self.num_calls = 0

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            self.num_calls += 1
            return (self.layer(x) * self.scale) @ table

    module = certified(Model(), torch.randn(5, 4), torch.randn(3, 3), batch_dims={"table": None})
    (graph,) = module.certificate.graphs
    assert graph.entered == (
        "x: samples along axis 0",
        "scale: the same for all samples",
        "table: the same for all samples",
    )
    assert graph.written == ("num_calls: free of samples",)
    assert graph.public == ()
    assert "2 samples, largest relative difference" in graph.validated
    assert "num_calls: free of samples" in str(module.certificate)


def test_it_tells_which_sizes_are_public_and_what_one_sample_can_stop():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids).sum(1)

    module = certified(Model(), torch.randint(5, (4, 3)))
    module(torch.randint(5, (4, 6)))
    graph = module.certificate.graphs[-1]
    assert graph.public == ("size of axis 1 of ids",)
    assert any("embedding" in x and "self.table(ids)" in x for x in graph.stops)


def test_what_was_not_validated_is_said():
    module = dp_compile(nn.Linear(4, 3), "full", options=CompileOptions(backend="eager", verify="never"))
    module(torch.randn(5, 4))
    assert module.certificate.graphs[0].validated == "not yet, or not asked for"


def test_where_the_loss_is_decides_what_is_assumed():
    outside = certified(nn.Linear(4, 3), torch.randn(5, 4)).certificate
    assert any("loss outside the graph" in x for x in outside.assumptions)
    module = dp_compile(nn.Linear(4, 3), "full", loss_fn=losses.cross_entropy, loss_reduction="mean", options=EAGER)
    module(torch.randn(5, 4), targets=(torch.randint(3, (5,)),))
    inside = module.certificate
    assert not any("loss outside the graph" in x for x in inside.assumptions)
    assert any("mean over the samples" in x for x in inside.assumptions)


class Halving:
    """A clipping function of the user's own."""

    def factor(self, norm: Tensor, max_norm: float) -> Tensor:
        return max_norm / (2 * norm + 1)

    def bound(self, max_norm: float) -> float:
        return max_norm / 2


@torch.library.custom_op("dpgraph_certificate::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An op without a rule."""
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_everything_taken_on_trust_is_named():
    operator = torch.ops.dpgraph_certificate.twice.default
    register_transfer(operator, "pointwise")
    try:

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(4, 3)

            def forward(self, x: Tensor, table: Tensor) -> Tensor:
                return self.layer(twice(x)) @ table

        module = certified(
            Model(), torch.randn(5, 4), torch.randn(3, 3), batch_dims={"table": None}, clipping=Halving()
        )
        trusted = module.certificate.trusted
    finally:
        del _TRANSFERS[operator]
        REGISTERED.discard(operator)
    assert len(trusted) == 3
    for words in ("batch_dims={'table': None}", "Halving", "dpgraph_certificate.twice"):
        assert any(words in x for x in trusted)
    assert 0.5 <= module.sensitivity <= 0.5 * 1.018
