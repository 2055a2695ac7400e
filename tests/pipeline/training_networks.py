"""Networks of a user's own, small enough to be trained in a test."""

from __future__ import annotations

from torch import nn


def tiny(num_classes: int = 10, width: int = 8) -> nn.Module:
    """(N, 3, H, W) to (N, num_classes): a strided convolution, a pool, batch norms, dropout."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1),
        nn.Conv2d(width, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, num_classes),
    )  # fmt: skip
