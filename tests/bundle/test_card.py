from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.bundle.card import model_card
from spdify.records import Check, OnnxRecord

if TYPE_CHECKING:
    from spdify import Conversion


def test_onnx_file(conversion: Conversion) -> None:
    onnx = OnnxRecord(file="model.onnx", opset=20, dynamic_batch=True, checks=(Check(name="x", outcome="passed"),))
    assert "- `model.onnx`: ONNX, opset 20, any batch size, input 3×8×8 without" in model_card(
        conversion.record(onnx), conversion.report
    )


def test_onnx_file_that_fails(conversion: Conversion) -> None:
    onnx = OnnxRecord(
        file="model.unverified.onnx", opset=20, dynamic_batch=False, note="takes batch 1 only",
        checks=(Check(name="x", outcome="failed"),),
    )  # fmt: skip
    text = model_card(conversion.record(onnx), conversion.report)
    assert "fixed batch size (takes batch 1 only), input 3×8×8 without the batch; **does not pass" in text


def test_registry_model_needs_no_code(conversion: Conversion) -> None:
    record = conversion.record()
    source = record.source.model_copy(update={"kind": "timm", "spec": "timm:resnet18"})
    record = record.model_copy(update={"source": source, "command": "spdify convert resnet18"})
    text = model_card(record, conversion.report)
    assert 'spdify.load("path/to/this/folder")' in text
    assert "factory" not in text
    assert "```\nspdify convert resnet18\n```" in text
