"""A bundle of a network with a tied weight, written by hand-made records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify

if TYPE_CHECKING:
    from spdify import Conversion


class Tied(nn.Module):
    """Its head reads the transposed-free weight of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.linspace(1, 2, 4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).mean((2, 3)) * self.scale
        return self.second(torch.relu(self.first(x)))


@pytest.fixture(scope="session")
def tied() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture(scope="session")
def conversion(tied: Tied) -> Conversion:
    return spdify.convert(tied, example_input=torch.randn(1, 3, 8, 8))
