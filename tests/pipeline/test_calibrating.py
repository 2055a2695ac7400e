from __future__ import annotations

from pathlib import Path

import pytest
import torch

import spdify
from spdify.bundle import read_record
from spdify.errors import BundleError, CheckFailedError, NothingToConvertError, UsageError
from spdify.pipeline.calibrating import calibrate
from spdify.pipeline.evaluating import Normalisation
from spdify.records import Check, OnnxRecord
from tests.pipeline.training_networks import tiny

CODE = f"{Path(__file__).with_name('training_networks.py')}:tiny"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with one network converted by three rulebooks."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    network = tiny()
    network.train()(torch.randn(64, 3, 32, 32))  # norms that are not those of a fresh network
    for rules in ("spd", "spd-paper", "spd-fold"):
        spdify.convert(network, rules=rules, input_size=(3, 32, 32)).save(folder / rules, onnx=False)
    return folder


def run(folder: Path, output: Path, **options: object):  # noqa: ANN201
    return calibrate(folder, output, **{"data": "digits", "images": 100, "code": CODE, "onnx": False, **options})  # type: ignore[arg-type]


def test_a_pool_is_fitted_and_the_outputs_come_nearer(bundles: Path, tmp_path: Path) -> None:
    found = run(bundles / "spd-paper", tmp_path / "out", norms=False, onnx=True)
    (pool,) = found.pools
    assert pool.path == "3"
    assert pool.after < pool.before
    assert found.after == found.after_pools < found.before
    assert (found.images, found.held_out, found.norms) == (80, 20, 0)
    old, new = (spdify.load(folder, model=tiny()) for folder in (bundles / "spd-paper", tmp_path / "out"))
    moved = [name for name, tensor in new.state_dict().items() if not torch.equal(tensor, old.state_dict()[name])]
    assert moved == ["3.weight"]
    record = read_record(tmp_path / "out")
    assert record.calibrations == (found,)
    assert record.onnx is not None
    assert record.onnx.file == "model.onnx"
    assert record.preprocessing == found.preprocessing
    assert "Calibrated on 80 images of digits" in (tmp_path / "out" / "README.md").read_text()


def test_statistics_are_taken_anew(bundles: Path, tmp_path: Path) -> None:
    found = run(bundles / "spd", tmp_path / "out", norms=True, images=81)
    assert found.pools == ()
    assert found.norms == 2
    assert found.before < 1e-6  # all of it is exact
    assert found.after > 0
    changed = Normalisation(mean=(0.1, 0.2, 0.3))
    again = run(tmp_path / "out", tmp_path / "again", norms=True, normalisation=changed)
    assert len(read_record(tmp_path / "again").calibrations) == 2
    assert again.preprocessing.mean == (0.1, 0.2, 0.3)
    assert read_record(tmp_path / "again").preprocessing == again.preprocessing


def test_what_cannot_be_fitted_is_said(bundles: Path, tmp_path: Path) -> None:
    found = run(bundles / "spd-fold", tmp_path / "out")
    assert found.pools == ()
    assert list(found.not_fitted) == ["3"]
    assert "not of the form of one convolution" in found.not_fitted["3"]


def test_an_onnx_file_that_does_not_pass_is_an_error(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unverified(*_: object, **__: object) -> OnnxRecord:
        failed = Check(name="onnx batch 1", outcome="failed", value=1.0)
        return OnnxRecord(file="model.unverified.onnx", opset=20, dynamic_batch=True, checks=(failed,))

    monkeypatch.setattr("spdify.pipeline.starting.export_onnx", unverified)
    with pytest.raises(CheckFailedError, match="the ONNX file does not pass: onnx batch 1"):
        run(bundles / "spd-paper", tmp_path / "out", onnx=True)
    assert read_record(tmp_path / "out").onnx is not None


def test_refusals(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToConvertError, match="neither an approximate pool"):
        run(bundles / "spd", tmp_path / "out")  # all of it is exact
    with pytest.raises(UsageError, match="3 channels by 1 means"):
        run(bundles / "spd-paper", tmp_path / "out", normalisation=Normalisation(mean=(0.5,), std=(0.5,)))
    with pytest.raises(UsageError, match="expected at least 32"):
        run(bundles / "spd", tmp_path / "out", images=16)
    with pytest.raises(BundleError, match="not empty"):
        run(bundles / "spd", bundles / "spd")
    with pytest.raises(BundleError, match="cannot read"):
        run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
