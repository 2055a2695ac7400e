"""Detectors behind one face: images go in as they are, boxes come out in their pixels.

How a detector takes images and says what it has found differs from one library to the next. Each kind has an adapter
that is found by the model's class, never by its name and never by trying. A converted network is of the class that it
was of before, or of a subclass made for edited calls, so it has the adapter of the original.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spdify.detection.torchvision_detector import FAMILIES, TorchvisionDetector
from spdify.detection.ultralytics_detector import UltralyticsDetector
from spdify.engine.ultralytics_hooks import TASKS
from spdify.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from spdify.detection.found import Found

TORCHVISION = tuple(FAMILIES)
ULTRALYTICS_CLASS = "DetectionModel"
KNOWN = "torchvision's R-CNNs, RetinaNet, FCOS and SSD, and Ultralytics' DetectionModel (of a YOLO object, its .model)"


class Detector(Protocol):
    """A detector, ready to be measured.

    Attributes:
        kind: What it is, in words.
        outputs: Number of labels that it tells apart, the background included where it has one.
        names: Of its labels, as far as known; empty where they are not.
        resizes_itself: Whether the model does so, and takes no size from outside.
        background: Whether label 0 is the background, as torchvision has it, and no class.
        image_size: Height and width that images get, or shorter side and most of the longer one.
        resizing: How they get it, in words.
    """

    kind: str
    outputs: int
    names: tuple[str, ...]
    background: bool
    resizes_itself: bool
    image_size: tuple[int, int]
    resizing: str

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """Find objects.

        Args:
            images: Each (3, H, W), uint8, RGB, of any size.

        Returns:
            What was found in each, on the CPU.
        """
        ...


@dataclass(frozen=True)
class DetectorOptions:
    """What an adapter needs to know besides the model.

    Attributes:
        device: Where it computes.
        size: Height and width of the inputs, for detectors that leave resizing to who calls them.
        names: Of the labels, where the model's source knows them.
    """

    device: torch.device
    size: tuple[int, int]
    names: tuple[str, ...] = ()


def is_detector(model: nn.Module) -> bool:
    """Whether a model finds boxes, by its class."""
    return isinstance(model, TORCHVISION) or _ultralytics_class(model) is not None


def make_detector(model: nn.Module, options: DetectorOptions) -> Detector:
    """Give the adapter of a model's class.

    Args:
        model: A model that `is_detector` takes for one; the adapter may work on a copy.
        options: Where and how it computes.

    Raises:
        RefusedError: No adapter is for this class.
        UsageError: It does not take inputs of this size.
        SpdifyError: A package that it needs is not installed.
    """
    if isinstance(model, TORCHVISION):
        return TorchvisionDetector(model, device=options.device, names=options.names)
    found = _ultralytics_class(model)
    if found == ULTRALYTICS_CLASS:
        return UltralyticsDetector(model, device=options.device, size=options.size)
    raise RefusedError(
        f"cannot measure a {found or type(model).__name__}: spdify does not know how it says what it has found",
        hint=f"Detectors that are known: {KNOWN}.",
    )


def _ultralytics_class(model: nn.Module) -> str | None:
    """Give the name of the nearest class that is of Ultralytics and a detector, or derives from one.

    Whoever holds such a model has imported its module; so nothing is imported here. A model for masks, poses or
    another head is a subclass of the detector, and says something else.
    """
    tasks = sys.modules.get(TASKS)
    detector = getattr(tasks, ULTRALYTICS_CLASS, None)
    if not isinstance(detector, type) or not isinstance(model, detector):
        return None
    return next(kind.__name__ for kind in type(model).__mro__ if kind.__module__ == TASKS)
