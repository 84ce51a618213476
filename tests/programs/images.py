"""Steps [B, C, H, W] -> [B, C, H', W']."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.step import Step, Steps, free

__all__ = ["IMAGES"]

IMAGES = Steps()


def _convolution(C: int, depthwise: bool = False, **options: object) -> Step:
    layer = nn.Conv2d(C, C, 3, **({"groups": C} if depthwise else {}), **options)
    return Step(lambda m, h: m.layer(h), layer=layer)


for _name, _options in {
    "convolution": {"padding": 1},
    "convolution_without_padding": {},
    "convolution_with_groups": {"padding": 1, "groups": 2},
    "depthwise_convolution": {"padding": 1, "depthwise": True, "bias": False},
    "convolution_with_stride": {"padding": 1, "stride": 2},
    "grouped_convolution_with_stride": {"padding": 1, "stride": 2, "groups": 2},
    "dilated_convolution": {"padding": 2, "dilation": 2},
    "dilated_convolution_with_stride": {"padding": 2, "dilation": 2, "stride": 2, "depthwise": True},
    "reflecting_convolution": {"padding": 1, "padding_mode": "reflect"},
    "replicating_convolution": {"padding": 1, "padding_mode": "replicate", "groups": 2},
    "circular_convolution": {"padding": 1, "padding_mode": "circular"},
    "convolution_with_uneven_padding": {"padding": (0, 2), "stride": (1, 2)},
}.items():
    IMAGES[_name] = functools.partial(_convolution, **_options)


def _transposed(C: int, kernel: int, **options: object) -> Step:
    return Step(lambda m, h: m.layer(h), layer=nn.ConvTranspose2d(C, C, kernel, **options))


for _name, _kernel, _options in (
    ("transposed_convolution", 3, {"padding": 1}),
    ("transposed_convolution_with_stride", 2, {"stride": 2, "groups": 2, "bias": False}),
    ("transposed_convolution_with_all", 3, {"stride": 2, "padding": 2, "output_padding": 1, "dilation": 2}),
):
    IMAGES[_name] = functools.partial(_transposed, kernel=_kernel, **_options)


def _group_norm(C: int, groups: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.GroupNorm(groups, C))


for _groups in (1, 2):
    IMAGES[f"group_norm_{_groups}"] = functools.partial(_group_norm, groups=_groups)


@IMAGES.add
def instance_norm(C: int) -> Step:
    """In one dimension: that of two gives a wrong gradient of a single image in channels last, outside dpgraph."""

    def run(m: Step, h: Tensor) -> Tensor:
        padded = F.pad(h, (1, 1, 1, 0))
        return m.norm(padded.flatten(2)).view_as(padded)

    return Step(run, norm=nn.InstanceNorm1d(C, affine=True))


@IMAGES.add
def local_response_norm(C: int) -> Step:
    return Step(lambda m, h: m.norm(h) * m.scale, norm=nn.LocalResponseNorm(2), scale=free(C, 1, 1))


@IMAGES.add
def batch_norm_in_eval(C: int) -> Step:
    return Step(lambda m, h: m.norm(h), norm=nn.BatchNorm2d(C).eval())


@IMAGES.add
def norm_over_channels(C: int) -> Step:
    return Step(lambda m, h: m.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(C))


@IMAGES.add
def residual_in_place(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        y = m.layer(h)
        y += h
        return F.relu_(y)

    return Step(run, layer=nn.Conv2d(C, C, 3, padding=1, bias=False))


@IMAGES.add
def squeeze_and_excite(C: int) -> Step:
    return Step(lambda m, h: h * m.layer(h.mean((2, 3))).sigmoid()[..., None, None], layer=nn.Linear(C, C))


@IMAGES.add
def pooling(C: int) -> Step:
    return Step(lambda m, h: F.avg_pool2d(h, 3, 1, 1) + F.max_pool2d(h, 3, 1, 1))


@IMAGES.add
def adaptive_pooling(C: int) -> Step:
    return Step(lambda m, h: m.layer(F.adaptive_avg_pool2d(h, (3, 2))), layer=nn.Conv2d(C, C, 1))


@IMAGES.add
def layer_scale(C: int) -> Step:
    return Step(lambda m, h: h * m.scale, scale=free(C, 1, 1))


@IMAGES.add
def prelu(C: int) -> Step:
    return Step(lambda m, h: m.activation(h), activation=nn.PReLU(C))


@IMAGES.add
def upsample_nearest(C: int) -> Step:
    return Step(lambda m, h: m.layer(F.interpolate(h, scale_factor=2)), layer=nn.Conv2d(C, C, 3, stride=2, padding=1))


@IMAGES.add
def resize_bilinear(C: int) -> Step:
    return Step(
        lambda m, h: m.layer(F.interpolate(h, (4, 5), mode="bilinear", align_corners=True)), layer=nn.Conv2d(C, C, 1)
    )


@IMAGES.add
def pixel_shuffle(C: int) -> Step:
    return Step(lambda m, h: F.avg_pool2d(F.pixel_shuffle(m.layer(h), 2), 2), layer=nn.Conv2d(C, 4 * C, 1))


@IMAGES.add
def pixel_unshuffle(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        return m.layer(F.pixel_unshuffle(F.pad(h, (0, h.shape[3] % 2, h.shape[2] % 2, 0)), 2))

    return Step(run, layer=nn.Conv2d(4 * C, C, 1))


@IMAGES.add
def channel_shuffle(C: int) -> Step:
    return Step(lambda m, h: m.layer(F.channel_shuffle(h, 2)), layer=nn.Conv2d(C, C, 1, groups=2))


@IMAGES.add
def patches(C: int) -> Step:
    """Convolution as a product with the unfolded image."""

    def run(m: Step, h: Tensor) -> Tensor:
        columns = F.unfold(h, 3, padding=1)
        return m.layer(columns.transpose(1, 2)).transpose(1, 2).unflatten(2, h.shape[2:])

    return Step(run, layer=nn.Linear(9 * C, C))


@IMAGES.add
def attention_over_pixels(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        x = h.flatten(2).transpose(1, 2)
        q, k, v = m.qkv(x).chunk(3, -1)
        return h + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, h.shape[2:])

    return Step(run, qkv=nn.Linear(C, 3 * C, bias=False))


@IMAGES.add
def two_branches(C: int) -> Step:
    def run(m: Step, h: Tensor) -> Tensor:
        a, b = h.chunk(2, 1)
        return torch.cat([m.layer(b), m.layer(a.sin())], 1)

    return Step(run, layer=nn.Conv2d(C // 2, C // 2, (1, 3), padding=(0, 1)))
