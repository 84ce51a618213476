"""Cases in which other libraries clip wrongly, crash or stay silent: dpgraph is exact or refuses by name."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpgraph import UnsoundProgramError, dp_compile
from tests.models.run import Run
from tests.models.transformers_zoo import transformer, words
from tests.programs.exact import EAGER, check_exact

f64 = torch.float64


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=f64)


def ids(*shape: int, vocabulary: int = 5) -> Tensor:
    return torch.randint(0, vocabulary, shape)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 3), (5, 4)),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (5, 6, 4)),
        (nn.Conv2d(3, 4, 3), (5, 3, 6, 6)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), (5, 3, 6, 6)),
    ],
    ids=["linear", "layer norm", "convolution", "group norm"],
)
@pytest.mark.parametrize("clipping", ["auto-v", "abadi"])
def test_biases_alone(layer, shape, clipping):
    model = layer.double()
    check_exact(model, rows(*shape), mode="bitfit", clipping=clipping)
    assert all((p.grad is not None) == name.endswith("bias") for name, p in model.named_parameters())


@pytest.mark.parametrize("grouping", ["flat", "per-layer"])
def test_modules_registered_in_another_order_than_they_run(grouping):
    model = Run(
        lambda m, x: m.last(torch.tanh(m.middle(torch.tanh(m.first(x))))),
        last=nn.Linear(4, 2),
        first=nn.Linear(3, 5),
        middle=nn.Linear(5, 4),
    ).double()
    check_exact(model, rows(4, 3), clipping="auto-v", grouping=grouping)


def test_a_tied_embedding_and_output_layer():
    def function(m: Run, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(m.inner(m.table(x))), m.table.weight)

    model = Run(function, table=nn.Embedding(5, 4), inner=nn.Linear(4, 4))
    check_exact(model.double(), ids(4, 6), clipping="auto-v")


def test_a_weight_tied_between_modules():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)).double()
    model[2].weight = model[0].weight
    check_exact(model, ids(4, 6), clipping="auto-v", grouping="per-layer")


def test_a_weight_used_by_another_module():
    model = Run(
        lambda m, x: F.linear(torch.tanh(m.layer(x)), m.layer.weight.T, m.layer.bias[:1]), layer=nn.Linear(4, 3)
    )
    check_exact(model.double(), rows(5, 2, 4), clipping="auto-v")


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4)])
def test_one_module_called_twice(shape):
    model = Run(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Linear(4, 4)).double()
    check_exact(model, rows(*shape), clipping="auto-v")


def test_one_convolution_called_twice():
    model = Run(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Conv2d(3, 3, 3, padding=1)).double()
    check_exact(model, rows(4, 3, 5, 5), clipping="auto-v")


@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_on_channels_last(groups):
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 3, groups=groups)).double()
    model = model.to(memory_format=torch.channels_last)
    x = rows(4, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    check_exact(model, x, clipping="auto-v")


def test_a_convnext_block():
    def block(m: Run, x: Tensor) -> Tensor:
        y = m.depthwise(x).permute(0, 2, 3, 1)
        y = m.down(F.gelu(m.up(m.norm(y)))) * m.scale
        return x + y.permute(0, 3, 1, 2)

    model = Run(
        block,
        depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        norm=nn.LayerNorm(4),
        up=nn.Linear(4, 8),
        down=nn.Linear(8, 4),
        scale=parameter(4),
    ).double()
    check_exact(model, rows(3, 4, 5, 5).contiguous(memory_format=torch.channels_last), clipping="auto-v")


@pytest.mark.parametrize("padding_mode", ["circular", "reflect", "replicate", "zeros"])
def test_convolutions_with_padding_modes(padding_mode):
    model = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode).double()
    check_exact(model, rows(4, 3, 5, 6), clipping="auto-v")


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_with_repeated_ids(mode):
    model = nn.Sequential(nn.EmbeddingBag(4, 3, mode=mode), nn.Linear(3, 2)).double()
    check_exact(model, ids(5, 6, vocabulary=4), clipping="auto-v")


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags_with_padding(mode):
    model = nn.Sequential(nn.EmbeddingBag(4, 3, mode=mode, padding_idx=1), nn.Linear(3, 2)).double()
    bags = ids(5, 6, vocabulary=4)
    bags[2] = 1  # padding alone
    check_exact(model, bags, clipping="auto-v")
    assert not model[0].weight.grad[1].any()


def test_embedding_bags_with_weights_of_the_ids():
    def weighted(m: Run, x: Tensor, weights: Tensor) -> Tensor:
        return m.bag(x, per_sample_weights=weights)

    model = Run(weighted, bag=nn.EmbeddingBag(4, 3, mode="sum")).double()
    check_exact(model, ids(5, 6, vocabulary=4), rows(5, 6), clipping="auto-v")


def test_an_embedding_with_repeated_ids_and_padding():
    model = nn.Sequential(nn.Embedding(4, 3, padding_idx=1), nn.Linear(3, 2)).double()
    check_exact(model, ids(5, 6, vocabulary=4), clipping="auto-v")
    assert not model[0].weight.grad[1].any()


def test_a_linear_layer_on_four_axes():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    module = check_exact(model, rows(4, 2, 3, 4), clipping="auto-v")
    # the norms of another batch are its own
    check_exact(model, 100 * rows(4, 2, 3, 4), clipping="auto-v", module=module)


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_grouped_convolutions(groups, dims):
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    model = kind(6, 6, 3, groups=groups, stride=2, padding=1).double()
    check_exact(model, rows(3, 6, *[5] * dims), clipping="auto-v")


@pytest.mark.parametrize("dims", [1, 2])
def test_transposed_convolutions(dims):
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}[dims]
    model = kind(4, 6, 3, groups=2, stride=2, padding=1, output_padding=1).double()
    check_exact(model, rows(3, 4, *[4] * dims), clipping="auto-v")


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4, bias=False), nn.RMSNorm(4)], ids=["layer norm without bias", "rms norm"]
)
def test_norms_without_bias(norm):
    check_exact(nn.Sequential(nn.Linear(4, 4), norm).double(), rows(5, 3, 4), clipping="auto-v", grouping="per-param")


def test_raw_parameters():
    def embed(m: Run, x: Tensor) -> Tensor:
        tokens = m.project(x)
        tokens = torch.cat([m.class_token.expand(len(x), -1, -1), tokens], 1) + m.positions
        return tokens * m.layer_scale + m.shift[None, :, None]

    model = Run(
        embed,
        project=nn.Linear(3, 4),
        class_token=parameter(1, 1, 4),
        positions=parameter(1, 6, 4),
        layer_scale=parameter(4),
        shift=parameter(6),
    ).double()
    check_exact(model, rows(4, 5, 3), clipping="auto-v", grouping="per-param")


def test_in_place_residuals():
    def residual(m: Run, x: Tensor) -> Tensor:
        y = m.second(m.activation(m.first(x)))
        y += x
        y.mul_(0.5)
        return m.activation(y)

    model = Run(residual, first=nn.Linear(4, 4), second=nn.Linear(4, 4), activation=nn.ReLU(inplace=True)).double()
    check_exact(model, rows(5, 4), clipping="auto-v")


def test_positions_made_inside_the_model():
    def embed(m: Run, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1])[None]
        return m.head(torch.tanh(m.words(x) + m.positions(positions)))

    model = Run(embed, words=nn.Embedding(5, 4), positions=nn.Embedding(8, 4), head=nn.Linear(4, 3)).double()
    check_exact(model, ids(4, 6), clipping="auto-v")


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_positions_made_inside_a_transformer(name):
    architecture = transformer(name, masked=False)
    model = architecture.build()
    check_exact(
        Run(lambda m, x: m.inner(input_ids=x).logits, inner=model),
        words(4),
        clipping="auto-v",
        mode="full",
    )


def test_dropout_in_a_module_with_parameters():
    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, self.training)

    model = nn.Sequential(Layer(4, 6), nn.Tanh(), nn.Linear(6, 3)).double().train()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    module(rows(5, 4)).square().sum().backward()
    total = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
    assert module.grad_norms.isfinite().all()
    assert 0 < total <= 5


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing(dropout):
    def run(m: Run, x: Tensor) -> Tensor:
        return m.head(checkpoint(m.block, x, use_reentrant=False))

    block = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Dropout(dropout), nn.Linear(6, 4))
    model = Run(run, block=block, head=nn.Linear(4, 3)).double().train()
    if dropout == 0:
        check_exact(model, rows(5, 4), clipping="auto-v")
    else:
        module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
        module(rows(5, 4)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_layers_called_with_keyword_arguments():
    model = Run(
        lambda m, x: m.second(input=torch.tanh(m.first(input=x))), first=nn.Linear(4, 5), second=nn.Linear(5, 3)
    )
    check_exact(model.double(), rows(5, 4), clipping="auto-v")


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_between_steps_are_fresh(set_to_none):
    model = nn.Linear(4, 3).double()
    module = check_exact(model, rows(5, 4), clipping="auto-v")
    for _ in range(2):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        check_exact(model, rows(5, 4), clipping="auto-v", module=module)


def test_gradient_accumulation_adds_clipped_gradients():
    model = nn.Linear(4, 3).double()
    module = dp_compile(model, "full", clipping="auto-v", options=EAGER)
    x = rows(6, 4)
    module(x).square().sum().backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for part in x.split([3, 1, 2]):
        module(part).square().sum().backward()
    for p, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_samples", [0, 1])
@pytest.mark.parametrize(
    ("model", "sample"),
    [
        (nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)), ids(1, 6)),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), rows(1, 2, 5, 5)),
    ],
    ids=["embedding", "group norm"],
)
def test_empty_batches_and_batches_of_one(model, sample, num_samples):
    model = model.double()
    module = check_exact(model, sample[:num_samples], clipping="auto-v")
    assert module.grad_norms.shape == (num_samples,)
    if num_samples == 0:
        assert all(not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_in_train_mode_is_refused(affine, frozen):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=affine), nn.Flatten(), nn.Linear(16, 2)).double()
    for p in model[1].parameters():
        p.requires_grad_(not frozen)
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "trainable", options=EAGER)(rows(5, 3, 4, 4))
    assert caught.value.place.module == "1"
    assert "GroupNorm" in caught.value.fix


def test_batch_norm_in_eval_mode_is_exact():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).double()
    model.train()
    model(rows(8, 3, 4, 4))
    check_exact(model.eval(), rows(5, 3, 4, 4), clipping="auto-v")


def test_attention_across_the_samples_is_refused_and_within_a_sample_exact():
    def attend(m: Run, x: Tensor) -> Tensor:
        return m.attention(x, x, x, need_weights=False)[0]

    across = Run(attend, attention=nn.MultiheadAttention(4, 2, batch_first=False)).double()
    with pytest.raises(UnsoundProgramError):
        dp_compile(across, "full", options=EAGER)(rows(5, 3, 4))
    # the same module on [T, B, d] attends within a sample
    check_exact(across, rows(3, 5, 4), batch_dims=1, output_axis=1, clipping="auto-v")
    within = Run(attend, attention=nn.MultiheadAttention(4, 2, batch_first=True)).double()
    check_exact(within, rows(5, 3, 4), clipping="auto-v")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_loss_over_the_tokens_of_the_batch_is_refused(name):
    model = transformer(name).build()
    x = words(4)
    labels = x.clone()
    labels[0, 3:] = -100

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
            return self.inner(input_ids=input_ids, labels=labels).loss

    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(WithLoss(), "full", options=EAGER)(x, labels)
    assert "functools.partial(dpgraph.losses.token_cross_entropy, shift=True)" in caught.value.fix


def test_an_average_kept_in_a_buffer_is_refused():
    class Tracking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("average", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            self.average.lerp_(y.detach().mean(0), 0.1)
            return y

    model = Tracking().double()
    with pytest.raises(UnsoundProgramError) as caught:
        dp_compile(model, "full", options=EAGER)(rows(5, 4))
    assert "into 'average'" in caught.value.what
    assert not model.average.any()
