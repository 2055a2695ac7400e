"""What is known of torchvision's detectors, by their classes."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from spdify.graph.detectors import Detector, detector_of
from tests.detectors import one_stage, two_stages

HEADS = ("rpn.head.cls_logits", "roi_heads.box_predictor.cls_score")
KNOWN = {
    "fasterrcnn_resnet50_fpn": Detector(91, HEADS),
    "maskrcnn_resnet50_fpn": Detector(91, HEADS, masks=True),
    "keypointrcnn_resnet50_fpn": Detector(2, HEADS, keypoints=17),
    "retinanet_resnet50_fpn": Detector(91, ("head.classification_head.cls_logits",)),
    "fcos_resnet50_fpn": Detector(91, ("head.classification_head.cls_logits",)),
    "ssd300_vgg16": Detector(91, tuple(f"head.classification_head.module_list.{i}" for i in range(6))),
    "ssdlite320_mobilenet_v3_large": Detector(
        91, tuple(f"head.classification_head.module_list.{i}.1" for i in range(6))
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_torchvision(name: str) -> None:

    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    assert detector_of(model) == KNOWN[name]


def test_subclasses_too() -> None:
    model = one_stage()
    model.__class__ = type("Mine", (type(model),), {})
    assert detector_of(model) is not None


def test_other_networks_and_other_heads_are_not_known() -> None:
    model = two_stages()
    model.roi_heads.box_predictor = nn.Identity()  # type: ignore[union-attr]
    assert detector_of(model) is None
    assert detector_of(nn.Conv2d(3, 4, 3)) is None
