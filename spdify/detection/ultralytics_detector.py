"""Ultralytics' detection networks, by way of the package's own predictor.

Letterboxing, non-maximum suppression and the way back to an image's pixels are what the package does; it is imported
when it is called, and none of it is repeated here.
"""

from __future__ import annotations

import copy
import inspect
import logging
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spdify.detection.found import Found
from spdify.errors import UsageError
from spdify.sources.ultralytics_package import ultralytics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import Tensor, nn

CONFIDENCE, OVERLAP, MOST_BOXES = 0.001, 0.7, 300  # as its own validation has them
PATIENCE = 3600.0  # seconds per image; its own limit ends suppression half-way on a busy machine, and only warns


class UltralyticsDetector:
    """An Ultralytics `DetectionModel`, converted or not.

    Every image is letterboxed to the whole input, also where a narrower rectangle would do: what is found must not
    depend on which images are in a batch. Suppression takes a box once for each class above the threshold, as the
    package's validation does and its predictions do not. The network runs as it is, its batch norms not folded.
    """

    kind = "Ultralytics DetectionModel"
    background = False
    resizes_itself = False
    resizing = "letterboxed"

    def __init__(self, model: nn.Module, *, device: torch.device, size: tuple[int, int]) -> None:
        """Take a model.

        Args:
            model: Copied: the package changes networks that it runs.
            device: Where it computes.
            size: Height and width of the inputs.

        Raises:
            SourceError: The package is not installed, or not a release with these parts.
            UsageError: The size is not a multiple of the network's stride.
        """
        self._predictor = _predictor(copy.deepcopy(model).eval(), device, size)
        stride = int(self._predictor.model.stride)
        if any(side % stride for side in size):
            raise UsageError(
                f"cannot measure on inputs of {size[0]}x{size[1]}: the network takes multiples of {stride}",
                hint=f"Give --input-size 3,H,W with H and W multiples of {stride}.",
            )
        names: dict[int, str] = self._predictor.model.names
        self.names = tuple(names[index] for index in range(len(names)))
        self.outputs = int(getattr(model.model[-1], "nc", len(names)))  # type: ignore[index]  # its head
        self.image_size = size

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """Find objects in images, each (3, H, W), uint8."""
        # The package takes arrays of the form (H, W, BGR).
        arrays = [image.flip(0).permute(1, 2, 0).contiguous().numpy() for image in images]
        with _quiet():
            results = self._predictor(arrays)
        return [
            Found(boxes.xyxy.float().cpu(), boxes.conf.float().cpu(), boxes.cls.long().cpu())
            for boxes in (result.boxes for result in results)
        ]


def _predictor(model: nn.Module, device: torch.device, size: tuple[int, int]) -> Any:  # noqa: ANN401 - untyped package
    """Make the package's predictor for a model, with the suppression of its validation."""
    base: Any = ultralytics("models.yolo.detect").DetectionPredictor
    backend, suppression = ultralytics("nn.autobackend").AutoBackend, ultralytics("utils.nms").non_max_suppression

    class Predictor(base):  # type: ignore[misc]  # a class of an untyped package
        def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **_: Any) -> Any:  # noqa: ANN401
            kept = suppression(
                preds, self.args.conf, self.args.iou, multi_label=True, max_det=self.args.max_det,
                max_time_img=PATIENCE, end2end=getattr(self.model, "end2end", False),
            )  # fmt: skip
            return self.construct_results(kept, img, orig_imgs)

    with _quiet():
        predictor = Predictor(
            overrides={
                "task": "detect", "mode": "predict", "imgsz": list(size), "conf": CONFIDENCE, "iou": OVERLAP,
                "max_det": MOST_BOXES, "rect": False, "save": False, "verbose": False, "device": str(device),
                "project": tempfile.gettempdir(), "name": "spdify", "exist_ok": True,
            }
        )  # fmt: skip
        # Its events tell its makers of every prediction; who measures with spdify has asked for no such thing.
        predictor.callbacks.clear()
        # What `setup_model` would do, but for folding: that is another network than the one to be measured.
        options: dict[str, Any] = {"device": device, "fuse": False, "verbose": False}
        if "end2end" in inspect.signature(backend.__init__).parameters:
            # Releases that can choose between a head with suppression and one without take the first by default.
            options["end2end"] = predictor.args.nms is False
        predictor.model = backend(model=model, **options)
        predictor.model.eval()
        predictor.device = predictor.model.device
    return predictor


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's log from stdout, which is for results: of its faults it raises what matters."""
    log = logging.getLogger("ultralytics")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
