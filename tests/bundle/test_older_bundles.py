"""Bundles that earlier versions wrote: each stays as it was written, and is read by every later version.

`written_by_0_1_0` is the `best` of `spdify finetune timm:test_resnet --model-kwargs channels=[8,8,16,16] --rules spd
--rules se --set se/gate.reduction=4 --data digits --epochs 1 --no-onnx --device cpu`, with PyTorch 2.14.1, without
report.html; beside it an input and what the network gave for it then, in float64.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import spdify
from spdify.bundle import read_record, read_report

HERE = Path(__file__).parent
OLD = [HERE / "written_by_0_1_0"]
SUMS = {"written_by_0_1_0": "8865ebca8c84a63cf44878799279f875ceaf378164675a486211c29175630a94"}


@pytest.mark.parametrize("folder", OLD, ids=lambda folder: folder.name)
class TestOldBundle:
    def test_it_is_as_it_was_written(self, folder: Path) -> None:
        files = sorted(folder.iterdir())
        sums = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert hashlib.sha256(sums.encode()).hexdigest() == SUMS[folder.name]

    def test_it_computes_what_it_did(self, folder: Path) -> None:
        network = spdify.load(folder).double().eval()
        saved = load_file(folder.with_suffix(".safetensors"))
        found = network(saved["input"].double())
        assert torch.allclose(found, saved["output"], rtol=0, atol=1e-12)  # float64; scale of the outputs is 1

    def test_its_texts_are_read(self, folder: Path) -> None:
        record = read_record(folder)
        assert [decision.rewrite for plan in record.plans for decision in plan.applied]
        assert record.trainings
        assert record.preprocessing is not None
        assert read_report(folder).after.params > read_report(folder).before.params

    def test_it_is_gone_on_with(self, folder: Path, tmp_path: Path) -> None:
        again = spdify.convert(folder, rules="cbam", overrides=["gate.reduction=4"])
        again.save(tmp_path / "again", onnx=False)
        assert len(read_record(tmp_path / "again").plans) == len(read_record(folder).plans) + 1

    def test_one_of_a_later_version_is_refused(self, folder: Path, tmp_path: Path) -> None:
        copied = tmp_path / "later"
        shutil.copytree(folder, copied)
        content = json.loads((copied / "spdify.json").read_text(encoding="utf-8"))
        (copied / "spdify.json").write_text(json.dumps(content | {"schema_version": 2}), encoding="utf-8")
        with pytest.raises(spdify.SpdifyError, match="schema_version"):
            spdify.load(copied)
