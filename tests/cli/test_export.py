"""`spdify export` and `spdify bench` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spdify.records import BenchRecord, ExportRecord

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

CODE = ("--code", "net.py:build")


def test_export(spdify: Spdify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = spdify("export", bundle, *CODE)
    assert "form fused, onnx in float32, opset 20" in result.stdout
    assert "any batch at any height and width" in result.stdout
    assert "Conv2d(3, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))" in " ".join(result.stdout.split())
    assert "form, trained weights" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert sorted(path.name for path in Path("bundle-fused-onnx").iterdir()) == ["export.json", "model.onnx"]
    assert "not empty" in spdify("export", bundle, *CODE, code=1).stderr


def test_export_as_json_to_python(spdify: Spdify, bundle: Path) -> None:
    found = json.loads(spdify("export", bundle, *CODE, "--format", "python", "-o", "out", "--json").stdout)
    record = ExportRecord.model_validate(found["export"])
    assert record.files == ("model.py", "weights.safetensors")
    assert "spdify" not in Path("out/model.py").read_text()
    spdify("export", bundle, *CODE, "--format", "python", "-o", "out", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("--form", "folded"), "expected one of spd, fused", 2),
        (("--form", "spd", "--dynamic-size"), "cannot leave height and width open", 2),
        (("--format", "pt2", "--dtype", "float16"), "only ONNX", 2),
    ],
)
def test_faults(arguments: tuple[str, ...], words: str, code: int, spdify: Spdify, bundle: Path) -> None:
    result = spdify("export", bundle, *CODE, *arguments, code=code)
    assert words in " ".join(result.stderr.split())
    assert not list(Path().glob("bundle-*"))


def test_a_network_that_is_not_converted(spdify: Spdify) -> None:
    result = spdify("export", "net.py:build", "--input-size", "3,32,32", code=2)
    assert "no block that could take another form" in " ".join(result.stderr.split())


def test_bench(spdify: Spdify, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    quick = ("--rounds", "3", "--threads", "1")
    result = spdify("bench", bundle, *CODE, *quick, "--forms", "original,fused", "--svg", "bench.svg")
    assert "PyTorch on cpu, 1 thread, batch 1, 3×" in result.stdout
    assert "so that nothing folds back" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert Path("bench.svg").read_text().startswith("<svg")
    found = spdify(
        "bench", "net.py:build", "--input-size", "3,32,32", *quick, "--forms", "fused,original", "--json"
    ).stdout
    record = BenchRecord.model_validate_json(found)
    assert [row.form for row in record.timings] == ["fused", "original"]
    assert record.timings[0].ratio is None
    assert "it exists" in spdify("bench", bundle, *CODE, "--svg", "bench.svg", code=1).stderr


def test_bench_faults(spdify: Spdify) -> None:
    size = ("--input-size", "3,32,32")
    assert "expected original" in spdify("bench", "net.py:build", *size, "--forms", "quick", code=2).stderr
    assert "nothing to convert" in spdify("bench", "net.py:plain", *size, code=4).stderr
