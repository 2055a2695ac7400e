"""Networks of Ultralytics, by way of the package's predictor."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch

import spdify
from spdify.detection import DetectorOptions, is_detector, make_detector
from spdify.errors import RefusedError, UsageError
from tests.detection.made import write_yolo

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

CPU = torch.device("cpu")


def network(classes: int = 3, name: str = "yolov5n.yaml") -> nn.Module:
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    kind = tasks.SegmentationModel if "seg" in name else tasks.DetectionModel
    model: nn.Module = kind(name, nc=classes, verbose=False)
    return model


def certain(model: nn.Module) -> nn.Module:
    """Make the head give, whatever it sees, boxes of one size in the middle of each cell, sure of class 1."""
    head = model.model[-1]  # type: ignore[index]
    with torch.no_grad():
        for box, scores in zip(head.cv2, head.cv3, strict=True):
            box[-1].weight.zero_()
            # A distribution over distances that has all its weight on 2 strides.
            box[-1].bias.copy_(torch.nn.functional.one_hot(torch.tensor(2), head.reg_max).repeat(4) * 50.0)
            scores[-1].weight.zero_()
            scores[-1].bias.copy_(torch.tensor([-50.0, 2.5, -50.0]))
    return model


def test_boxes_come_back_through_the_letterbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = certain(network())
    before = copy.deepcopy(model.state_dict())
    detector = make_detector(model, DetectorOptions(CPU, (64, 64)))
    assert (detector.kind, detector.outputs, detector.names) == ("Ultralytics DetectionModel", 3, ("0", "1", "2"))
    wide, square = torch.zeros(3, 64, 128, dtype=torch.uint8), torch.full((3, 64, 64), 200, dtype=torch.uint8)
    first, second = detector.detect([wide, square])
    assert set(first.labels.tolist()) == set(second.labels.tolist()) == {1}
    # At stride 8 a box is 32 wide, the last one around (60, 60); the wide image is halved and lies 16 from the top. So
    # its left upper corner is (60 - 16, 60 - 16 - 16) x 2, and the other one beyond the image.
    assert first.boxes.max(dim=0).values.tolist() == [88, 56, 128, 64]
    assert second.boxes.max(dim=0).values.tolist()[2:] == [64, 64]
    (alone,) = detector.detect([wide])
    assert torch.equal(alone.boxes, first.boxes)  # whichever images are beside it
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert list(tmp_path.iterdir()) == []


def test_a_box_may_be_of_several_classes() -> None:
    model = certain(network())
    with torch.no_grad():
        for scores in model.model[-1].cv3:  # type: ignore[index, union-attr]
            scores[-1].bias.fill_(1.0)
    (found,) = make_detector(model, DetectorOptions(CPU, (64, 64))).detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert set(found.labels.tolist()) == {0, 1, 2}


def test_it_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    detector = make_detector(network(), DetectorOptions(CPU, (64, 64)))
    capfd.readouterr()
    detector.detect([torch.zeros(3, 50, 64, dtype=torch.uint8)])
    assert capfd.readouterr() == ("", "")


def test_sizes_that_do_not_fit_the_stride() -> None:
    with pytest.raises(UsageError, match="inputs of 100x64: the network takes multiples of 32"):
        make_detector(network(), DetectorOptions(CPU, (100, 64)))


def test_a_network_for_something_else() -> None:
    model = network(name="yolov8n-seg.yaml")
    assert is_detector(model)
    with pytest.raises(RefusedError, match="cannot measure a SegmentationModel"):
        make_detector(model, DetectorOptions(CPU, (64, 64)))


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_yolo(tmp_path / "made")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = certain(network())
    capfd.readouterr()
    found = spdify.evaluate(model, data=str(data), build={"input_size": (3, 64, 64)})
    assert (found.detector, found.image_size, found.images) == ("Ultralytics DetectionModel", (64, 64), 3)
    assert found.precision.ap_small == 0
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []
    usual = spdify.evaluate(model, data=str(data))
    assert usual.image_size == (640, 640)
    model.input_size = (3, 96, 96)  # type: ignore[assignment]  # what it states itself goes before that
    assert spdify.evaluate(model, data=str(data)).image_size == (96, 96)


def test_a_converted_network_finds_the_same(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "made")
    model = certain(network())
    conversion = spdify.convert(model, input_size=(3, 64, 64), proof="site")
    size = {"input_size": (3, 64, 64)}
    before, after = (spdify.evaluate(m, data=str(data), build=size) for m in (model, conversion.model))
    assert before.precision.model_dump() == pytest.approx(after.precision.model_dump())
    assert before.precision.ar100 > 0


def test_of_two_heads_the_one_that_the_package_takes() -> None:
    detector = make_detector(network(name="yolo26n.yaml"), DetectorOptions(CPU, (64, 64)))
    predictor = detector._predictor  # type: ignore[attr-defined]
    assert predictor.model.end2end == (predictor.args.nms is False)
    (found,) = detector.detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert found.boxes.shape[1] == 4
