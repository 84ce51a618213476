"""What a refusal says to do fits its cause, and one that is only cautious claims no leak."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpgraph import UnsoundProgramError, UnsupportedProgramError, dp_compile
from dpgraph.provenance.check import UNSEEN, WHY
from tests.programs.exact import EAGER


class Program(nn.Module):
    """A layer and a normalisation, in whatever way a test is about."""

    def __init__(self, function, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def refuse(function, norm=None, error=UnsoundProgramError):
    with pytest.raises(error) as caught:
        dp_compile(Program(function, norm), "full", options=EAGER)(torch.randn(6, 4))
    return caught.value


@pytest.mark.parametrize(
    ("function", "norm"),
    [
        (lambda m, x: m.norm(m.layer(x)), nn.BatchNorm1d(4)),
        (lambda m, x: m.norm(m.layer(x)), nn.BatchNorm1d(4, track_running_stats=False)),
        (lambda m, x: m.norm(m.layer(x)[..., None, None])[..., 0, 0], nn.BatchNorm2d(4, affine=False)),
        (lambda m, x: F.batch_norm(m.layer(x), None, None, training=True), None),
    ],
    ids=["with buffers", "without", "of images", "as a function"],
)
def test_batch_norm_is_named(function, norm):
    error = refuse(function, norm)
    assert "BatchNorm" in error.what
    assert "GroupNorm" in error.fix
    assert "model.train() undoes that" in error.fix
    if norm is not None:
        assert error.place.module == "norm"


CAUSES = {
    "mean": (lambda m, x: m.layer(x) - x.mean(0), "within each sample"),
    "sum": (lambda m, x: m.layer(x) * x.sum(0).exp(), "within each sample"),
    "norm": (lambda m, x: F.normalize(m.layer(x), dim=0), "within each sample"),
    "largest": (lambda m, x: m.layer(x) - x.amax(0), "within each sample"),
    "softmax": (lambda m, x: m.layer(x).softmax(0), "dim=-1"),
    "log-softmax": (lambda m, x: m.layer(x).log_softmax(0), "dim=-1"),
    "logsumexp": (lambda m, x: m.layer(x).logsumexp(0), "dim=-1"),
    "sort": (lambda m, x: m.layer(x).sort(0).values, "dim=-1"),
    "cumsum": (lambda m, x: m.layer(x).cumsum(0), "dim=-1"),
    "Fourier": (lambda m, x: torch.fft.fft(m.layer(x), dim=0).real, "dim=-1"),
    "roll": (lambda m, x: m.layer(x) + x.roll(1, 0), "leave the axis of the samples as it is"),
    "flip": (lambda m, x: m.layer(x) + x.flip(0), "leave the axis of the samples as it is"),
    "first": (lambda m, x: m.layer(x) + x[0], "leave the axis of the samples as it is"),
    "picked": (lambda m, x: m.layer(x)[(x[:, 0] > 0).long()], "leave the axis of the samples as it is"),
    "shuffled": (lambda m, x: m.layer(x)[torch.randperm(x.shape[0])], "leave the axis of the samples as it is"),
    "view": (lambda m, x: m.layer(x).view(2, -1).softmax(1).view(-1, 4), "leave the axis of the samples as it is"),
    "products": (lambda m, x: m.layer(x) @ m.layer(x).T, "pairs of samples"),
    "distances": (lambda m, x: torch.cdist(m.layer(x), x), "pairs of samples"),
    "einsum": (lambda m, x: torch.einsum("bd,cd->bc", m.layer(x), x), "pairs of samples"),
    "number": (lambda m, x: m.layer(x) * (x > 0).sum().item(), "mask by it"),
    "size": (lambda m, x: m.layer(x) * (x > 0).nonzero().shape[0], "mask by it"),
}


@pytest.mark.parametrize(("function", "told"), CAUSES.values(), ids=list(CAUSES))
def test_the_fix_fits_the_cause(function, told):
    error = refuse(function)
    assert told in error.fix
    assert "GroupNorm" not in error.fix


@pytest.mark.parametrize("function", [lambda m, x: m.layer(x) / x.var(0), lambda m, x: m.layer(x) / x.std(0)])
def test_a_batch_norm_by_hand_is_told_of_norms_of_single_samples(function):
    error = refuse(function)
    assert "GroupNorm" in error.fix
    assert "eval()" not in error.fix


def test_other_buffers_are_not_told_to_be_frozen():
    module = Program(lambda m, x: m.layer(x) + 0 * m.kept.add_(x.sum(0)).sum())
    module.register_buffer("kept", torch.zeros(4))
    with pytest.raises(UnsoundProgramError, match="into 'kept'") as caught:
        dp_compile(module, "full", options=EAGER)(torch.randn(6, 4))
    assert "eval()" not in caught.value.fix
    assert "public data" in caught.value.fix


def test_a_view_claims_no_leak():
    error = refuse(lambda m, x: m.layer(x).view(2, -1).flip(0).flip(0).view(-1, 4))
    assert error.why == UNSEEN
    assert refuse(lambda m, x: m.layer(x) - x.mean(0)).why == WHY


@torch.library.custom_op("dpgraph_tests::picky_advice", mutates_args=())
def picky(x: Tensor) -> Tensor:
    raise ValueError("only for real data")


@picky.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_what_could_not_be_shown_is_called_so(monkeypatch):
    from dpgraph.provenance import registry

    operator = torch.ops.dpgraph_tests.picky_advice.default
    monkeypatch.setitem(registry._TRANSFERS, operator, lambda step: step.unshown("does what it likes"))
    error = refuse(lambda m, x: m.layer(picky(x)), error=UnsupportedProgramError)
    assert error.what == "dpgraph cannot see that samples stay apart in an op that does what it likes"
    assert error.why == UNSEEN
    assert "axis of their own" in error.fix
