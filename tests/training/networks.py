"""Small classifiers and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spdify.datasets import Pixels
from spdify.records import Preprocessing

HOW = Preprocessing(input_size=(3, 16, 16), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Small(nn.Module):
    """(N, 3, 16, 16) to (N, 4); with batch norm, a strided convolution, a pool and dropout."""

    def __init__(self, classes: int = 4, drop: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bn1(self.conv1(x)).relu())
        return self.fc(self.drop(self.conv2(x).relu().mean((2, 3))))  # type: ignore[no-any-return]


def small(seed: int = 0, **arguments: float) -> Small:
    """Give the network, its weights drawn by the seed."""
    torch.manual_seed(seed)
    return Small(**arguments)  # type: ignore[arg-type]


def coloured(count: int = 64, *, size: int = 16, seed: int = 0) -> Pixels:
    """Give noisy images whose class is their most intense colour (or none of them)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 150, (count, 3, size, size), generator=generator)
    for index, label in enumerate(labels.tolist()):
        if label < 3:
            images[index, label] += 80
    return Pixels(images.to(torch.uint8), labels)
