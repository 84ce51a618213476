"""Models as people write them, without transformers: vision, sequences, graphs, tables."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.models.architecture import Architecture, Batch, classification_loss

__all__ = ["OWN"]

CLASSES = 3


class Residual(nn.Module):
    """Two convolutions with GroupNorm beside a shortcut; additions and activations in place, as in torchvision."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(2, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(2, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        y += self.shortcut(x)
        return self.activation(y)


def _resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.GroupNorm(2, 4), nn.ReLU(True), nn.MaxPool2d(3, 2, 1))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    return nn.Sequential(stem, Residual(4, 4, 1), Residual(4, 8, 2), head)


class UNet(nn.Module):
    """Two levels down and up again, joined by skip connections; a label a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._block(3, 4), self._block(4, 6)])
        self.bottom = self._block(6, 8)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 6, 2, 2), nn.Upsample(scale_factor=2, mode="nearest")])
        self.merge = nn.ModuleList([self._block(12, 6), self._block(10, 4)])
        self.head = nn.Conv2d(4, CLASSES, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(1, outputs), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x).mean((2, 3))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, then a multilayer perceptron over channels, with a layer scale; channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.scale * self.down(F.gelu(self.up(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


def _convnext() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, CLASSES))
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), ConvNeXtBlock(4), ConvNeXtBlock(4), head)
    return model.to(memory_format=torch.channels_last)


class MixerBlock(nn.Module):
    """A perceptron over the patches, then one over the channels."""

    def __init__(self, patches: int, channels: int) -> None:
        super().__init__()
        self.over_patches = nn.Sequential(nn.Linear(patches, 6), nn.GELU(), nn.Linear(6, patches))
        self.over_channels = nn.Sequential(nn.Linear(channels, 6), nn.GELU(), nn.Linear(6, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(channels), nn.LayerNorm(channels)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norms[1](x))


class Mixer(nn.Module):
    """MLP-Mixer with a patch embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(4, 5), MixerBlock(4, 5))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class TemporalConvolution(nn.Module):
    """Causal dilated convolutions with weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(parametrizations.weight_norm(nn.Conv1d(4, 4, 3, dilation=2**i)) for i in range(3))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = x + torch.relu(layer(F.pad(x, (2 * 2**i, 0))))
        return self.head(x[:, :, -1])


class RecurrentClassifier(nn.Module):
    """Words, a recurrent network in both directions, and attention over its states."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 4, padding_idx=0)
        self.states = kind(4, 3, num_layers=2, bidirectional=True, batch_first=True)
        self.query = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.states(self.words(ids))
        weights = (states @ self.query).softmax(1)
        return self.head((weights[:, :, None] * states).sum(1))


class GraphNetwork(nn.Module):
    """Graph convolutions on one fixed graph of five nodes, whose features are the sample."""

    def __init__(self) -> None:
        super().__init__()
        edges = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [0, 2]])
        adjacency = torch.eye(5)
        adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
        degrees = adjacency.sum(1)
        self.register_buffer("adjacency", adjacency / (degrees[:, None] * degrees[None]).sqrt())
        self.layers = nn.ModuleList([nn.Linear(4, 6, bias=False), nn.Linear(6, 6, bias=False)])
        self.biases = nn.ParameterList([torch.zeros(6), torch.zeros(6)])
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer, bias in zip(self.layers, self.biases, strict=True):
            x = torch.relu(self.adjacency @ layer(x) + bias)
        return self.head(x.amax(1))


class TabularTransformer(nn.Module):
    """Each column a token: tables for categories, a scale and a shift for numbers, a class token in front."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = nn.ModuleList([nn.Embedding(4, 8), nn.Embedding(7, 8)])
        self.scale, self.shift = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.zeros(3, 8))
        self.token = nn.Parameter(torch.randn(8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        columns = [table(codes[:, i]) for i, table in enumerate(self.categories)]
        values = numbers[:, :, None] * self.scale + self.shift
        tokens = torch.cat([self.token.expand(len(codes), 1, -1), torch.stack(columns, 1), values], 1)
        return self.head(self.encoder(tokens)[:, 0])


class FactorisationMachine(nn.Module):
    """A bag of features with weights, and the products of their factors."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(CLASSES))
        self.linear = nn.EmbeddingBag(13, CLASSES, mode="sum")
        self.factors = nn.Embedding(13, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        v = self.factors(features)
        pairs = 0.5 * (v.sum(1).square() - v.square().sum(1))
        return self.bias + self.linear(features) + self.head(pairs)


def _labels(num_samples: int) -> Tensor:
    return torch.randint(CLASSES, (num_samples,))


def _images(size: int, channels_last: bool = False):
    def batch(num_samples: int) -> Batch:
        x = torch.randn(num_samples, 3, size, size)
        return Batch(
            {"x": x.contiguous(memory_format=torch.channels_last) if channels_last else x}, _labels(num_samples)
        )

    return batch


def _named(name: str, batch):
    """A batch whose only input has another name."""

    def renamed(num_samples: int) -> Batch:
        made = batch(num_samples)
        return Batch({name: next(iter(made.inputs.values()))}, made.labels)

    return renamed


def _signals(num_samples: int) -> Batch:
    return Batch({"x": torch.randn(num_samples, 4, 12)}, _labels(num_samples))


def _sentences(num_samples: int) -> Batch:
    return Batch({"ids": torch.randint(0, 11, (num_samples, 3))}, _labels(num_samples))


def _nodes(num_samples: int) -> Batch:
    return Batch({"x": torch.randn(num_samples, 5, 4)}, _labels(num_samples))


def _records(num_samples: int) -> Batch:
    codes = torch.stack([torch.randint(4, (num_samples,)), torch.randint(7, (num_samples,))], 1)
    return Batch({"codes": codes, "numbers": torch.randn(num_samples, 3)}, _labels(num_samples))


def _features(num_samples: int) -> Batch:
    return Batch({"features": torch.randint(13, (num_samples, 5))}, _labels(num_samples))


OWN = (
    Architecture("resnet with group norm", _resnet, _named("input", _images(16)), classification_loss),
    Architecture("u-net", UNet, _images(8), classification_loss),
    Architecture("convnext block", _convnext, _named("input", _images(8, channels_last=True)), classification_loss),
    Architecture("mlp-mixer", Mixer, _images(8), classification_loss),
    Architecture("temporal convolutions", TemporalConvolution, _signals, classification_loss),
    Architecture("gru classifier", lambda: RecurrentClassifier(nn.GRU), _sentences, classification_loss),
    Architecture("lstm classifier", lambda: RecurrentClassifier(nn.LSTM), _sentences, classification_loss),
    Architecture("graph network", GraphNetwork, _nodes, classification_loss),
    Architecture("tabular transformer", TabularTransformer, _records, classification_loss),
    Architecture("factorisation machine", FactorisationMachine, _features, classification_loss),
)
