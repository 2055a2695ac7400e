"""Adapters by class; torchvision's."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
import torchvision
from torch import nn

from spdify.detection import DetectorOptions, is_detector, make_detector
from spdify.errors import RefusedError

OPTIONS = DetectorOptions(torch.device("cpu"), (64, 64))
SMALL = {"weights": None, "weights_backbone": None}


def faster_rcnn(classes: int = 4) -> nn.Module:
    model: nn.Module = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        **SMALL, num_classes=classes, min_size=64, max_size=96
    )
    return model


def ssdlite(classes: int = 4) -> nn.Module:
    model: nn.Module = torchvision.models.detection.ssdlite320_mobilenet_v3_large(**SMALL, num_classes=classes)
    return model


def test_images_of_any_size_and_boxes_in_their_pixels() -> None:
    torch.manual_seed(0)
    detector = make_detector(faster_rcnn(), OPTIONS)
    assert (detector.kind, detector.outputs, detector.image_size) == ("torchvision R-CNN", 4, (64, 96))
    assert detector.background
    images = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for size in ((50, 80), (200, 160))]
    together = detector.detect(images)
    for image, found in zip(images, together, strict=True):
        height, width = image.shape[1:]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        (alone,) = detector.detect([image])
        assert torch.equal(found.boxes, alone.boxes)  # whichever images are beside it
    assert max(found.boxes.max() for found in together if len(found)) > 96  # of the image, not of the input


def test_others_of_torchvision() -> None:
    detector = make_detector(ssdlite(), OPTIONS)
    assert (detector.kind, detector.outputs, detector.image_size) == ("torchvision SSD", 4, (320, 320))
    assert "stretched" in detector.resizing


@pytest.mark.slow
def test_large_ones_of_torchvision() -> None:
    for name, kind in (("retinanet_resnet50_fpn", "RetinaNet"), ("fcos_resnet50_fpn", "FCOS")):
        model = torchvision.models.get_model(name, **SMALL, num_classes=4, min_size=64, max_size=96)
        detector = make_detector(model, OPTIONS)
        assert (detector.kind, detector.outputs) == (f"torchvision {kind}", 4)
        detector.detect([torch.zeros(3, 50, 80, dtype=torch.uint8)])


def test_names_are_those_of_as_many_labels() -> None:
    names = ("__background__", "a", "b", "c")
    assert make_detector(ssdlite(4), DetectorOptions(torch.device("cpu"), (1, 1), names)).names == names
    assert make_detector(ssdlite(3), DetectorOptions(torch.device("cpu"), (1, 1), names)).names == ()


def test_a_head_of_another_kind() -> None:
    model = faster_rcnn()
    model.roi_heads.box_predictor = nn.Identity()  # type: ignore[union-attr]
    with pytest.raises(RefusedError, match="does not keep the number of its classes as torchvision's R-CNN does"):
        make_detector(model, OPTIONS)


def test_a_subclass_has_the_adapter_of_its_class() -> None:
    model = ssdlite()
    model.__class__ = type("SSD", (type(model),), {})
    assert make_detector(model, OPTIONS).kind == "torchvision SSD"


def test_what_is_no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    class DetectionModel(nn.Module):
        """One that is only called so."""

    assert not is_detector(nn.Conv2d(1, 1, 1))
    assert not is_detector(DetectionModel())
    with pytest.raises(RefusedError, match="cannot measure a DetectionModel") as caught:
        make_detector(DetectionModel(), OPTIONS)
    assert "Ultralytics' DetectionModel" in caught.value.hint
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", ModuleType("ultralytics.nn.tasks"))
    assert not is_detector(DetectionModel())
