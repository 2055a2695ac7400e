"""Small networks with something odd about each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)  # tiny networks: threads only get into each other's way


class Plain(nn.Module):
    """Convolutions and a pool, batch norm, dropout, and a buffer that no state dict holds."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2, 2)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Conv2d(width, 6, 1, 2, bias=False)
        self.register_buffer("gain", torch.linspace(0.5, 1.5, 6).view(1, 6, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.pool(self.norm(self.stem(x)).relu()))) * self.gain


class TwoInputs(nn.Module):
    """Takes an image and a mask, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3, 2, 1)
        self.mask = nn.Conv2d(1, 4, 2, 2)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.image(image) * self.mask(mask)


@pytest.fixture
def plain() -> Plain:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain()


@pytest.fixture
def two_inputs() -> TwoInputs:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoInputs()
