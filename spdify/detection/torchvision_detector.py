"""torchvision's detectors: lists of images from 0 to 1 go in; the model resizes, normalises and maps boxes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD

from spdify.detection.found import Found
from spdify.errors import RefusedError
from spdify.graph.detectors import detector_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

FAMILIES: dict[type, str] = {GeneralizedRCNN: "R-CNN", RetinaNet: "RetinaNet", FCOS: "FCOS", SSD: "SSD"}


class TorchvisionDetector:
    """A detector of torchvision, or of a class derived from one of its.

    Images go through one at a time, as for the figures that torchvision publishes: in a batch they would be filled up
    to the largest, and what is found would depend on which images happen to be together. Thresholds and the most boxes
    per image are the model's own.
    """

    background = True
    resizes_itself = True

    def __init__(self, model: nn.Module, *, device: torch.device, names: tuple[str, ...] = ()) -> None:
        """Take a model.

        Args:
            model: Put on the device and into eval mode, in place.
            device: Where it computes.
            names: Of its labels, if they are known and as many.

        Raises:
            RefusedError: The number of its labels is not where torchvision keeps it.
        """
        family, known = next(name for kind, name in FAMILIES.items() if isinstance(model, kind)), detector_of(model)
        if known is None:
            raise RefusedError(
                f"cannot measure {type(model).__name__}: it does not keep the number of its classes as torchvision's "
                f"{family} does",
                hint="Its heads must be torchvision's own.",
            )
        self.outputs = known.classes
        self.kind = f"torchvision {family}"
        self.names = names if len(names) == self.outputs else ()
        self.image_size, self.resizing = _resizing(model)
        self._model, self._device = model.to(device).eval(), device

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """Find objects in images, each (3, H, W), uint8."""
        with torch.no_grad():
            return [self._found(image) for image in images]

    def _found(self, image: Tensor) -> Found:
        (said,) = self._model([image.to(self._device).float() / 255])
        return Found(said["boxes"].cpu(), said["scores"].cpu(), said["labels"].cpu())


def _resizing(model: nn.Module) -> tuple[tuple[int, int], str]:
    transform: Any = model.transform
    if transform.fixed_size is not None:
        # Here torchvision has the width first.
        width, height = transform.fixed_size
        return (height, width), "stretched, by the model itself"
    # Of several shorter sides the last is the one in eval mode.
    return (transform.min_size[-1], transform.max_size), "shorter side and most of the longer, by the model itself"
