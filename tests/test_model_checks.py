"""Models that need one more line before they can be compiled, and errors that say which."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dpgraph import ArgumentError, CaptureError, UnsupportedProgramError, dp_compile
from tests.models.run import Run
from tests.programs.exact import EAGER, check_exact


def test_a_lazy_module_asks_for_a_batch_first():
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2))
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ArgumentError, match="one batch") as caught:
        dp_compile(model, "full", options=EAGER)
    assert caught.value.place.parameter == "0.weight"
    assert [p.requires_grad for p in model.parameters()] == flags
    model.double()
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.float64))
    check_exact(model, torch.randn(4, 3, dtype=torch.float64))


def test_a_lazy_buffer_too():
    with pytest.raises(ArgumentError, match=r"0\.(running_mean|weight)"):
        dp_compile(nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.Linear(3, 2)), "full", options=EAGER)


def old(name: str) -> nn.Module:
    """A model with a hook of old, under the name of its function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        hooked = getattr(nn.utils, name)(nn.Linear(4, 3))
    return nn.Sequential(hooked, nn.Tanh(), nn.Linear(3, 2)).double()


@pytest.mark.parametrize("name", ["spectral_norm", "weight_norm"])
def test_hooks_of_old_name_the_parametrizations(name):
    model = old(name)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(UnsupportedProgramError) as caught:
        dp_compile(model, "full", options=EAGER)
    assert f"torch.nn.utils.parametrizations.{name}" in caught.value.fix
    assert caught.value.place.parameter in ("0.weight_orig", "0.weight_g")
    assert [p.requires_grad for p in model.parameters()] == flags
    new = nn.Sequential(getattr(parametrizations, name)(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)).double()
    check_exact(new.eval(), torch.randn(5, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["spectral_norm", "weight_norm"])
def test_hooks_of_old_are_no_hindrance_where_their_weights_are_not_trained(name):
    dp_compile(old(name).eval(), "bitfit", options=EAGER)(torch.randn(5, 4, dtype=torch.float64)).sum().backward()


def encoder(**arguments: bool) -> Run:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return m.encoder(x, mask=mask, **arguments)

    return Run(forward, encoder=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)).double()


def test_a_transformer_with_a_mask_asks_for_is_causal():
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    with pytest.raises(CaptureError) as caught:
        dp_compile(encoder(), "full", options=EAGER)(x)
    assert "is_causal" in caught.value.fix
    check_exact(encoder(is_causal=True), x)


def test_other_branches_on_data_are_told_as_before():
    with pytest.raises(CaptureError) as caught:
        dp_compile(Run(lambda m, x: m.layer(x) if x.sum() > 0 else x, layer=nn.Linear(4, 4)), "full", options=EAGER)(
            torch.ones(2, 4)
        )
    assert "is_causal" not in caught.value.fix


def test_a_flag_set_on_an_activation_names_the_switch():
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = x * 2
        x.requires_grad = True
        return m.layer(x)

    with pytest.raises(CaptureError) as caught:
        dp_compile(Run(forward, layer=nn.Linear(4, 4)), "full", options=EAGER)(torch.ones(2, 4))
    assert "_requires_grad = False" in caught.value.fix
    assert "freeze_feature_encoder" in caught.value.fix
