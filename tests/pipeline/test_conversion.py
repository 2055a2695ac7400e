from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import spdify
from spdify.bundle import read_record, read_report
from spdify.errors import BundleError, CheckFailedError, ExportError
from spdify.exporting import runtime

if TYPE_CHECKING:
    from pathlib import Path

    from spdify import Conversion
    from tests.pipeline.conftest import Plain

X = torch.randn(1, 3, 16, 16)


@pytest.fixture
def conversion(plain: Plain) -> Conversion:
    return spdify.convert(plain, example_input=X)


def test_onnx_computes_the_original(conversion: Conversion, plain: Plain, tmp_path: Path) -> None:
    record = conversion.save(tmp_path / "out")
    assert record.onnx is not None
    assert {c.outcome for c in record.onnx.checks} == {"passed"}
    session = ort.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    x = torch.randn(5, 3, 16, 16)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, plain.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_that_differs(conversion: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = runtime.OnnxModel.__call__
    monkeypatch.setattr(runtime.OnnxModel, "__call__", lambda *args: [1.01 * y for y in right(*args)])
    with pytest.raises(CheckFailedError, match="the ONNX file does not pass: onnx batch 1") as caught:
        conversion.save(tmp_path / "out")
    assert caught.value.exit_code == 3
    assert "model.unverified.onnx and must not be used" in caught.value.hint
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.unverified.onnx" in names
    assert "model.onnx" not in names
    assert "model.safetensors" in names
    record = read_record(tmp_path / "out")
    assert record.onnx is not None
    assert record.onnx.file == "model.unverified.onnx"
    assert "failed" in {c.outcome for c in read_report(tmp_path / "out").checks}
    assert "do not use it" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_onnx_of_which_nothing_could_be_compared(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * self.conv(x)

    conversion = spdify.convert(Constant(), example_input=X)
    with pytest.raises(CheckFailedError, match="the model's outputs are constant"):
        conversion.save(tmp_path / "out")
    assert (tmp_path / "out" / "model.unverified.onnx").is_file()


def test_export_fails(conversion: Conversion, tmp_path: Path) -> None:
    conversion.model.train()
    with pytest.raises(ExportError, match="expected eval mode"):
        conversion.save(tmp_path / "a" / "out")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_while_exporting(conversion: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spdify.exporting.files.write", fail)
    with pytest.raises(BundleError, match=r"cannot write .*out: no space left on the device"):
        conversion.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_saved_twice(conversion: Conversion, tmp_path: Path) -> None:
    conversion.save(tmp_path / "out", onnx=False)
    with pytest.raises(BundleError, match="it is not empty"):
        conversion.save(tmp_path / "out", onnx=False)
    first = (tmp_path / "out" / "model.safetensors").read_bytes()
    conversion.save(str(tmp_path / "out"), onnx=False, overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == first
