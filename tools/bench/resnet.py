"""ResNet-50 with GroupNorm in the place of BatchNorm, which mixes samples (He et al. 2015, arXiv:1512.03385)."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet50"]

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a sum with the input, which is projected where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.down = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width), nn.ReLU())
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.GroupNorm(groups, width), nn.ReLU()
        )
        self.up = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.GroupNorm(groups, out))
        changes = stride > 1 or channels != out
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.GroupNorm(groups, out))
            if changes
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        return F.relu(self.up(self.spatial(self.down(x))) + self.shortcut(x))


class ResNet50(nn.Module):
    """Images [B, 3, H, W] -> logits [B, classes]; `width` channels in the first stage, 64 in the paper."""

    def __init__(self, width: int, groups: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.GroupNorm(groups, width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage, num_blocks in enumerate(BLOCKS):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Bottleneck(channels, width << stage, stride, groups))
                channels = EXPANSION * (width << stage)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits
