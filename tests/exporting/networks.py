"""Small models that behave like the large ones where it matters, and what goes in and comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from spdify.records import Check, OnnxRecord


class Residual(nn.Module):
    """A strided convolution, then a residual branch whose last batch-norm weight is zero, as timm starts it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head((x + self.norm(self.branch(x))).mean((2, 3)))


class FixedBatch(nn.Module):
    """Writes the batch size that it sees into the graph as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(int(x.shape[0]), -1)


def images(batch: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return (torch.randn(batch, 3, 9, 7),), {}


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """Give a state dict in which nothing is zero and no variance is negative."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.is_floating_point() else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def check_named(record: OnnxRecord, name: str) -> Check:
    return next(check for check in record.checks if check.name == name)
