"""Whose doing it is when the batch comes out fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from tests.exporting.networks import FixedBatch, check_named, randomised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spdify.records import OnnxRecord

    Export = Callable[..., OnnxRecord]


class OpenBatch(FixedBatch):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1)


class BatchInGroups(nn.Module):
    """Weights per sample, as in CondConv: traces with an open batch, but no ONNX attribute can hold one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        weight = (self.weight * x.mean((2, 3))[:, None, :, None, None]).flatten(0, 1)
        return F.conv2d(x.reshape(1, n * 3, 9, 7), weight, groups=n).reshape(n, 4, 7, 5)


@pytest.mark.parametrize("kind", [FixedBatch, BatchInGroups])
def test_an_original_that_fixes_the_batch_is_no_fault_of_the_conversion(export: Export, kind: type[nn.Module]) -> None:
    model = kind()
    record = export(model, original=kind().eval(), perturbed=randomised(model))
    assert (record.file, record.dynamic_batch, record.note) == ("model.onnx", False, "takes batch 1 only")
    outcomes = {c.name: c.outcome for c in record.checks}
    assert outcomes == {
        "dynamic batch": "not run",
        "onnx checker": "passed",
        "onnx batch 1": "passed",
        "onnx batch 3": "not run",
        "onnx perturbed weights": "passed",
    }
    assert "the original does not export with an open batch either" in check_named(record, "dynamic batch").detail
    assert check_named(record, "onnx batch 3").detail


def test_a_batch_that_the_conversion_fixed_is_a_failed_check(export: Export, tmp_path: Path) -> None:
    record = export(FixedBatch(), original=OpenBatch().eval())
    check = check_named(record, "dynamic batch")
    assert check.outcome == "failed"
    assert "specialized it to be a constant" in check.detail
    assert record.file == "model.unverified.onnx"
    assert [path.name for path in tmp_path.iterdir()] == ["model.unverified.onnx"]


def test_without_an_original_nobody_is_blamed(export: Export) -> None:
    record = export(FixedBatch())
    check = check_named(record, "dynamic batch")
    assert check.outcome == "not run"
    assert "no original" in check.detail
    assert not record.dynamic_batch
