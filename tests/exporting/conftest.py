"""One way to export in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from spdify.exporting import export_onnx
from tests.exporting.networks import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from spdify.records import OnnxRecord


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., OnnxRecord]:
    def run(model: nn.Module, **kwargs: Any) -> OnnxRecord:  # noqa: ANN401 - handed on
        return export_onnx(model.eval(), tmp_path, **{"make_inputs": images, **kwargs})

    return run


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
