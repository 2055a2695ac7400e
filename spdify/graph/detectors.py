"""What spdify knows about the detectors of torchvision: one adapter per class, for it and its subclasses.

Their forward pass is like no other network's: in train mode it takes a list of images and their targets and gives
losses, in eval mode it gives what it has found, above a score. An adapter says which targets a network wants, and
which layers its scores come from. It goes by the class alone; a network whose heads are not torchvision's has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Detector:
    """How one detector is trained, and where its scores come from.

    Attributes:
        classes: Labels lie below this; 0 may be the background.
        scores: Paths of the layers, linear or convolutions, whose outputs become scores.
        masks: Whether its targets need a mask for each box.
        keypoints: How many keypoints its targets need for each box.
    """

    classes: int
    scores: tuple[str, ...]
    masks: bool = False
    keypoints: int = 0


def _rcnn(model: Any) -> Detector:  # noqa: ANN401 - torchvision's heads have no types
    heads = model.roi_heads
    return Detector(
        classes=heads.box_predictor.cls_score.out_features,
        scores=("rpn.head.cls_logits", "roi_heads.box_predictor.cls_score"),
        masks=heads.has_mask(),
        keypoints=heads.keypoint_predictor.kps_score_lowres.out_channels if heads.has_keypoint() else 0,
    )


def _one_stage(model: Any) -> Detector:  # noqa: ANN401 - as above
    return Detector(model.head.classification_head.num_classes, ("head.classification_head.cls_logits",))


def _ssd(model: Any) -> Detector:  # noqa: ANN401 - as above
    head = model.head.classification_head
    paths = []
    for number, branch in enumerate(head.module_list):
        *_, last = (name for name, layer in branch.named_modules() if isinstance(layer, nn.Conv2d))
        paths.append(f"head.classification_head.module_list.{number}.{last}".rstrip("."))
    return Detector(head.num_columns, tuple(paths))


_READERS: tuple[tuple[type[nn.Module], Callable[[Any], Detector]], ...] = (
    (GeneralizedRCNN, _rcnn),
    (RetinaNet, _one_stage),
    (FCOS, _one_stage),
    (SSD, _ssd),
)


def detector_of(model: nn.Module) -> Detector | None:
    """Give what is known of a detector; None for other networks, and for detectors with heads of somebody's own."""
    for kind, read in _READERS:
        if isinstance(model, kind):
            try:
                detector = read(model)
                for path in detector.scores:
                    model.get_submodule(path)
            except (AttributeError, ValueError):
                return None
            return detector
    return None
