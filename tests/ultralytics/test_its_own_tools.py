"""Converted networks trained, validated and exported by Ultralytics' own tools, on a small made set. Slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import spdify
from spdify.sources.ultralytics_package import ultralytics
from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 64
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with a bright square each, of one of two classes, in YOLO's form."""
    generator, tmp_path = np.random.default_rng(0), tmp_path_factory.mktemp("made")
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(8):
        pixels = generator.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        x, y, side = (int(v) for v in generator.integers(8, 32, 3))
        pixels[y : y + side, x : x + side, i % 2] = 250
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{i}.png")
        box = ((x + side / 2) / SIDE, (y + side / 2) / SIDE, side / SIDE, side / SIDE)
        (tmp_path / "data" / "labels" / f"{i}.txt").write_text(f"{i % 2} {' '.join(map(str, box))}\n")
    file = tmp_path / "data" / "made.yaml"
    file.write_text(f"path: {tmp_path / 'data'}\ntrain: images\nval: images\nnames: [red, green]\n")
    return file


@pytest.fixture(scope="module", params=["spd", "spd-released"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("exported")
    conversion = spdify.convert("ultralytics:yolov5n", rules=request.param, input_size=(3, SIDE, SIDE), proof="site")
    conversion.save(tmp_path / "bundle", onnx=False)
    spdify.export(tmp_path / "bundle", tmp_path / "pt", settings=spdify.ExportSettings(format="ultralytics"))
    return tmp_path / "pt" / "model.pt"


def blocks_of(model: Any) -> list[str]:  # noqa: ANN401 - with the package's attributes
    return [type(unit.conv).__name__ for unit in model.model if hasattr(unit, "conv")]


def test_its_trainer_trains_the_converted_network(exported: Path, data: Path, tmp_path: Path) -> None:
    yolo = ultralytics().YOLO(str(exported))
    blocks, before = blocks_of(yolo.model), yolo.model.model[1].conv.weight.clone()
    settings = {"imgsz": SIDE, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "verbose": False}
    yolo.train(data=str(data), epochs=1, project=str(tmp_path / "runs"), name="one", warmup_epochs=0, **settings)
    best = ultralytics().YOLO(str(tmp_path / "runs" / "one" / "weights" / "best.pt"))
    assert blocks_of(best.model) == blocks
    assert best.names == {0: "red", 1: "green"}
    assert not torch.allclose(best.model.model[1].conv.weight, before)
    metrics = best.val(data=str(data), project=str(tmp_path / "runs"), name="val", **settings)
    assert 0 <= metrics.box.map <= 1
    # What it trained can be read here again, and goes on in its trainer.
    loaded = spdify.sources.build(
        str(tmp_path / "runs" / "one" / "weights" / "best.pt"), spdify.sources.BuildOptions(trust_checkpoint=True)
    )
    assert loaded.source.kind == "object"
    best.train(data=str(data), epochs=1, project=str(tmp_path / "runs"), name="two", **settings)
    assert blocks_of(best.model) == blocks


def test_from_scratch_it_builds_the_converted_network_too(exported: Path, data: Path, tmp_path: Path) -> None:
    yolo = ultralytics().YOLO(str(exported))
    blocks = blocks_of(yolo.model)
    yolo.train(
        data=str(data), epochs=1, pretrained=False, project=str(tmp_path / "runs"), name="scratch", imgsz=SIDE, batch=4,
        workers=0, device="cpu", plots=False, verbose=False, val=False,
    )  # fmt: skip
    assert blocks_of(yolo.model) == blocks


def test_its_own_export_computes_the_same(exported: Path) -> None:
    yolo = ultralytics().YOLO(str(exported))
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = yolo.model.eval()(x)[0]
    file = yolo.export(format="onnx", imgsz=SIDE, simplify=False, verbose=False)
    session = onnxruntime.InferenceSession(file)
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert relative_error(expected, torch.from_numpy(actual)) < 1e-4
