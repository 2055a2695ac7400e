from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

import spdify
from spdify.records import Report

if TYPE_CHECKING:
    from pathlib import Path


def test_report_reads_back(report: Report) -> None:
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_tied_weights_count_once() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    net[3].weight = net[2].weight
    cost = spdify.inspect(net, example_input=torch.randn(1, 3, 3, 3)).cost
    assert cost.params == 3 * 4 * 9 + 4 + 16 + 4 + 4
    assert cost.weight_bytes == 4 * cost.params
    assert cost.macs == 3 * 4 * 9 + 16 + 16


def test_weights_file_is_what_the_report_says(tmp_path: Path) -> None:
    conversion = spdify.convert("test_resnet", proof="site")
    conversion.save(tmp_path / "out", onnx=False)
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert 0 < size - conversion.report.after.weight_bytes < 20_000  # the names
