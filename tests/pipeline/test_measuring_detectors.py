"""`evaluate` of detectors, whole: from a model and a folder to figures."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import nn

import spdify
from spdify.datasets import DataOptions, DataSet, Pixels
from spdify.errors import DataError, UsageError
from spdify.pipeline import measuring_detectors
from spdify.pipeline.evaluating import Normalisation, evaluate
from spdify.records import Machine, MeasuredDetector
from tests.detection.made import Knowing, answers, write_coco, write_yolo

if TYPE_CHECKING:
    from pathlib import Path

    from spdify.detection import DetectorOptions

CPU = Machine(device="cpu")


@lru_cache
def detector(classes: int = 4) -> nn.Module:
    """Make a small one; `evaluate` works on copies."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=classes, min_size=64, max_size=96
    )
    return model


def measure(data: object, model: object = None, **options: object) -> MeasuredDetector:
    found = evaluate(model or detector(), data=data, machine=CPU, **options)  # type: ignore[arg-type]
    assert isinstance(found, MeasuredDetector)
    return found


def test_end_to_end(tmp_path: Path) -> None:
    found = measure(str(write_yolo(tmp_path / "made")), batch_size=2)
    assert (found.model, found.detector, found.data, found.split) == (
        "FasterRCNN",
        "torchvision R-CNN",
        "made",
        "validation",
    )
    assert (found.images, found.objects.total, found.objects.small, found.objects.medium) == (3, 4, 2, 1)
    assert (found.image_size, found.classes, found.notes) == ((64, 96), ("cat", "dog", "cow"), ())
    assert found.precision.ap is not None
    assert found.images_per_second is not None
    assert MeasuredDetector.model_validate_json(found.model_dump_json()) == found


@pytest.mark.slow
def test_a_converted_one_finds_the_same(tmp_path: Path) -> None:
    data, model = str(write_coco(tmp_path / "made")), detector()
    with torch.no_grad():  # a fresh one finds nothing: unsure of everything
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 2, 1, 0]))  # type: ignore[union-attr, operator, arg-type]
        model.roi_heads.score_thresh = 0.01  # type: ignore[union-attr, assignment]
    converted = spdify.convert(model, input_size=(3, 64, 64), proof="site")
    before, after = measure(data, model), measure(data, converted.model)
    assert before.precision.model_dump() == pytest.approx(after.precision.model_dump())


@pytest.mark.parametrize(("offset", "outputs", "background"), [(0, 3, False), (1, 4, True)])
def test_figures_of_one_that_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, outputs: int, background: bool
) -> None:
    folder = write_yolo(tmp_path / "made")
    images = spdify.datasets.open_detection_data(str(folder)).images

    def knowing(_model: nn.Module, _options: DetectorOptions) -> Knowing:
        return Knowing(answers(images, offset=offset), outputs=outputs, background=background)

    monkeypatch.setattr(measuring_detectors, "make_detector", knowing)
    precision = measure(str(folder)).precision
    assert (precision.ap, precision.ap_small, precision.ar100) == pytest.approx((1, 1, 1))


def test_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_coco(tmp_path / "made")
    (folder / "val2017" / "1.png").write_bytes(b"none")
    names = ("__background__", "cat", "dog", "cow", "person", "N/A")
    images = spdify.datasets.open_detection_data(str(folder)).images
    told = Knowing(answers(images, offset=1), outputs=6, names=names, background=True)
    monkeypatch.setattr(measuring_detectors, "make_detector", lambda *_: told)
    found = measure(str(folder), data_options=DataOptions(skip_corrupt=True))
    assert found.notes == (
        "1 images could not be read and were left out",
        "1 classes that it knows are not in the data: what it finds of them is left out",
    )
    assert found.images == 2


def test_classes_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has 7 outputs \(the first is the background\), the data 3 classes"):
        measure(str(write_yolo(tmp_path / "made")), detector(7))


def test_options_without_a_meaning(tmp_path: Path) -> None:
    data = str(write_yolo(tmp_path / "made"))
    for options in ({"download": True}, {"validation_share": 0.2}, {"folder": tmp_path}):
        with pytest.raises(UsageError, match=r"cannot use --.* with a detector"):
            measure(data, data_options=DataOptions(**options))
    with pytest.raises(UsageError, match="cannot use --mean or --std"):
        measure(data, normalisation=Normalisation(mean=(0.5, 0.5, 0.5)))
    with pytest.raises(UsageError, match="cannot use --input-size with FasterRCNN"):
        measure(data, normalisation=Normalisation(size=(3, 64, 64)))


def test_a_detector_on_labelled_images(tmp_path: Path) -> None:
    build = {"build": {"input_size": (3, 64, 64)}}
    for data in ("cifar10", f"imagefolder:{tmp_path}", str(tmp_path)):
        with pytest.raises(DataError, match=f"cannot measure FasterRCNN on {data}: it is a detector") as caught:
            measure(data, **build)
        assert "annotations/instances_" in caught.value.hint
    pixels = Pixels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="cannot measure FasterRCNN on made"):
        measure(DataSet("made", ("a", "b"), pixels, None, pixels), **build)


def test_other_models_on_boxes(tmp_path: Path) -> None:
    data = str(write_yolo(tmp_path / "made"))
    with pytest.raises(
        DataError, match=r"cannot measure test_resnet on .*: that is data with labelled boxes"
    ) as caught:
        measure(data, "test_resnet")
    assert "RetinaNet" in caught.value.hint
    with pytest.raises(DataError, match="ONNX files are measured as classifiers only"):
        measure(data, "model.onnx")
    with pytest.raises(DataError, match="it is a Identity, which is not known as a detector"):
        measure(data, nn.Identity())
