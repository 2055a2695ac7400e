"""The report of a small conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify

if TYPE_CHECKING:
    from spdify.records import Report


@pytest.fixture(scope="session")
def report() -> Report:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2, 2), nn.Conv2d(4, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    options = {"example_input": torch.randn(1, 3, 16, 16), "overrides": ("max-pool.form=keep",)}
    return spdify.convert(net, **options).report
