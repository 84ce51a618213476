"""Models without transformers: convolutions with GroupNorm, and a multilayer perceptron."""

import torch
from torch import Tensor, nn

from tests.models.architecture import Architecture, Batch, classification_loss

__all__ = ["CNN", "MLP"]


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, with in-place activation and addition as in torchvision."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(2, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.activation(self.norm(self.first(x))))
        y += x
        return self.activation(y)


def _make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.SiLU(),
        ResidualBlock(4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, dilation=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def _make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


def _images(num_samples: int) -> Batch:
    return Batch({"input": torch.randn(num_samples, 3, 8, 8)}, torch.randint(3, (num_samples,)))


def _rows(num_samples: int) -> Batch:
    return Batch({"input": torch.randn(num_samples, 5)}, torch.randint(3, (num_samples,)))


CNN = Architecture("cnn", _make_cnn, _images, classification_loss)
MLP = Architecture("mlp", _make_mlp, _rows, classification_loss)
