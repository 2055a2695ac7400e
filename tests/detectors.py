"""Detectors of torchvision with bodies of two convolutions, for tests of more than one package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

SHAPE = (3, 64, 62)
WIDTH, CLASSES = 32, 5  # FCOS norms groups of a 32nd of the channels


def _body() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
    )  # fmt: skip
    body.out_channels = WIDTH  # type: ignore[assignment]
    return body


def two_stages() -> nn.Module:
    """Make a Faster R-CNN for images (3, 64, 62)."""
    torch.manual_seed(0)
    return FasterRCNN(
        _body(), num_classes=None, min_size=48, max_size=64, box_detections_per_img=40,
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2), box_head=TwoMLPHead(WIDTH * 9, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES),
    ).eval()  # fmt: skip


def with_masks() -> nn.Module:
    """Make a Mask R-CNN for images (3, 64, 62)."""
    model = two_stages()
    heads: Any = model.roi_heads
    heads.mask_roi_pool = MultiScaleRoIAlign(["0"], 4, 2)
    heads.mask_head, heads.mask_predictor = MaskRCNNHeads(WIDTH, (8,), 1), MaskRCNNPredictor(8, 8, CLASSES)
    return model.eval()


def with_keypoints() -> nn.Module:
    """Make a Keypoint R-CNN for images (3, 64, 62)."""
    model = two_stages()
    heads: Any = model.roi_heads
    heads.keypoint_roi_pool = MultiScaleRoIAlign(["0"], 4, 2)
    heads.keypoint_head, heads.keypoint_predictor = KeypointRCNNHeads(WIDTH, (8,)), KeypointRCNNPredictor(8, 3)
    return model.eval()


def single_shot() -> nn.Module:
    """Make an SSD for images (3, 64, 62)."""
    torch.manual_seed(0)
    boxes, body = DefaultBoxGenerator([[2]], scales=[0.2, 0.4]), _body()
    body.out_channels = [WIDTH]  # type: ignore[assignment]
    return SSD(body, boxes, (48, 48), CLASSES).eval()


def one_stage() -> nn.Module:
    """Make an FCOS for images (3, 64, 62)."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(((8,),), ((1.0,),))
    return FCOS(_body(), CLASSES, min_size=48, max_size=64, anchor_generator=anchors).eval()
