"""Networks of a user's own, small enough to be trained in a test."""

from __future__ import annotations

from torch import Tensor, nn


def tiny(num_classes: int = 10, width: int = 8) -> nn.Module:
    """(N, 3, H, W) to (N, num_classes): a strided convolution, a pool, batch norms, dropout."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1),
        nn.Conv2d(width, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, num_classes),
    )  # fmt: skip


class Block(nn.Module):
    """A strided convolution with its norm."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels_in, channels, 3, 2, 1), nn.BatchNorm2d(channels)
        self.again = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.norm(self.conv(x)).relu()).relu()


def staged(num_classes: int = 10) -> nn.Module:
    """(N, 3, H, W) to (N, num_classes): two blocks, each of which is a stage."""
    return nn.Sequential(Block(3, 8), Block(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes))
