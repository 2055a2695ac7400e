from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spdify.cli.terminal import output_console
from spdify.records import (
    AveragePrecision,
    Evaluation,
    MeasuredDetector,
    MeasuredModel,
    ObjectCounts,
    Preprocessing,
)
from tests.detection.made import write_yolo

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

DIGITS = ("--data", "digits")


def test_evaluate(spdify: Spdify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("evaluate", "net.py:build", "--num-classes", "10", "--input-size", "3,16,16", *DIGITS)
    result = spdify(*arguments)
    assert "359 test images: top-1" in result.stdout
    assert "mean and deviation of the training images" in result.stdout.replace("\n", " ")
    assert max(map(len, result.stdout.splitlines())) <= 80
    found = json.loads(spdify(*arguments, "--json", "--split", "validation").stdout)
    assert found["split"] == "validation"
    assert sum(map(sum, found["confusion"])) == found["evaluation"]["images"] == 143


def test_evaluate_a_bundle_and_its_classes(spdify: Spdify, bundle: Path) -> None:
    result = spdify("evaluate", bundle, "--code", "net.py:build", *DIGITS, code=1)
    assert "it has 5 outputs, the data 10 classes" in result.stderr


def test_calibrate(spdify: Spdify, bundle: Path) -> None:
    result = spdify("calibrate", bundle, "--code", "net.py:build", *DIGITS, "--images", "64", "--no-onnx", "--norms")
    assert "outputs: error" in result.stdout
    assert "1 batch norms" in result.stdout
    assert Path("bundle-calibrated/spdify.json").exists()
    found = json.loads(
        spdify(
            "calibrate",
            bundle,
            "--code",
            "net.py:build",
            *DIGITS,
            "--images",
            "64",
            "--no-onnx",
            "--norms",
            "-o",
            "b",
            "--json",
        ).stdout
    )
    assert found["calibration"]["norms"] == 1
    nothing = spdify("calibrate", bundle, "--code", "net.py:build", *DIGITS, "--no-norms", "-o", "c", code=4)
    assert "nothing to calibrate" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("evaluate", "net.onnx"), 1, "there is no such file"),
        (("evaluate", "net.py:build", "--data", "digits"), 2, "Cannot know the input size"),
        (("calibrate", "nowhere", "--data", "digits"), 1, "cannot read nowhere"),
    ],
)
def test_faults(spdify: Spdify, arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in spdify(*arguments, code=code).stderr


def test_many_classes_are_shown_as_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    from spdify.cli.render import render_measured

    confusion = [[9 if i == j else 0 for j in range(30)] for i in range(30)]
    confusion[3][7] = 5
    found = MeasuredModel(
        model="m", backend="torch", data="d", split="test", preprocessing_from="as given",
        preprocessing=Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3),
        classes=tuple(f"class{i}" for i in range(30)), images_per_second=12.0,
        evaluation=Evaluation(images=275, top1=0.9, top5=1, loss=0.1, calibration_error=0.02),
        confusion=tuple(map(tuple, confusion)),
    )  # fmt: skip
    render_measured(output_console(), found)
    shown = capsys.readouterr().out
    assert "Most often confused" in shown
    assert "class3" in shown
    assert "class7" in shown


DETECTOR = """
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn as build

def detector():
    return build(weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96)
"""


def test_evaluate_a_detector(spdify: Spdify, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (folder / "detector.py").write_text(DETECTOR)
    write_yolo(folder / "made")
    arguments = ("evaluate", "detector.py:detector", "--data", "made")
    shown = spdify(*arguments).stdout
    assert "3 validation images, 4 objects" in shown
    assert "AP small" in shown
    assert max(map(len, shown.splitlines())) <= 80
    found = json.loads(spdify(*arguments, "--json").stdout)
    assert found["objects"] == {"total": 4, "small": 2, "medium": 1, "large": 1, "crowds": 0}
    assert "cannot use --mean or --std" in spdify(*arguments, "--mean", "0.5,0.5,0.5", code=2).stderr
    assert "cannot use --download" in spdify(*arguments, "--download", code=2).stderr
    assert "there are none" in spdify(*arguments, "--split", "test", code=2).stderr


def test_figures_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    from spdify.cli.render import render_detector
    from spdify.cli.terminal import json_text

    found = MeasuredDetector(
        model="m", detector="made", data="d", split="test", images=2,
        objects=ObjectCounts(total=9, small=9, medium=0, large=0, crowds=2), classes=("a",), image_size=(64, 96),
        resizing="letterboxed", images_per_second=None, notes=("something",),
        precision=AveragePrecision(
            ap=0.1234, ap50=0.5, ap75=0, ap_small=0.1234, ap_medium=None, ap_large=None, ar100=1
        ),
    )  # fmt: skip
    render_detector(output_console(), found)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["AP", "12.3", "9"] in [line[:3] for line in lines]
    assert ["AP", "medium", "\N{EN DASH}", "0"] in [line[:4] for line in lines]
    assert ["something"] in lines
    assert json.loads(json_text(found))["precision"]["ap_medium"] is None
