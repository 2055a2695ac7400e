"""A data set made for the tests, in both formats, and detectors that know its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from spdify.detection import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from spdify.datasets import LabelledImage

CLASSES = ("cat", "dog", "cow")
#: Per image, its width and height and its objects: class, left, top, width, height.
IMAGES: tuple[tuple[tuple[int, int], tuple[tuple[int, ...], ...]], ...] = (
    ((200, 160), ((0, 20, 40, 16, 16), (1, 60, 20, 100, 120))),  # a small and a large one
    ((160, 120), ((2, 40, 30, 50, 60), (0, 100, 80, 24, 20))),  # a medium and a small one
    ((120, 120), ()),
)
CATEGORIES = (3, 7, 20)  # COCO's numbers need not follow on each other


def write_pictures(folder: Path) -> None:
    """Write the images: what is in each is its number, as a shade of grey."""
    folder.mkdir(parents=True)
    for number, ((width, height), _) in enumerate(IMAGES):
        Image.fromarray(np.full((height, width, 3), 10 * number, np.uint8)).save(folder / f"{number}.png")


def write_yolo(folder: Path, *, names: object = CLASSES, more: str = "") -> Path:
    """Write the set in YOLO's format."""
    write_pictures(folder / "images" / "val")
    (folder / "labels" / "val").mkdir(parents=True)
    for number, ((width, height), objects) in enumerate(IMAGES):
        if objects:
            lines = [
                f"{label} {(x + w / 2) / width!r} {(y + h / 2) / height!r} {w / width!r} {h / height!r}"
                for label, x, y, w, h in objects
            ]
            (folder / "labels" / "val" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    said = list(names) if isinstance(names, tuple) else names
    (folder / "data.yaml").write_text(f"path: .\nval: images/val\nnames: {json.dumps(said)}\n{more}")
    return folder


def coco_annotations() -> dict[str, list[dict[str, object]]]:
    """Give the set as COCO's JSON has it."""
    annotations = [
        {"image_id": 10 + number, "category_id": CATEGORIES[label], "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, (_, objects) in enumerate(IMAGES)
        for label, *box in objects
    ]
    return {
        "images": [
            {"id": 10 + number, "file_name": f"{number}.png", "width": width, "height": height}
            for number, ((width, height), _) in enumerate(IMAGES)
        ],
        # From 1: COCOeval takes the number 0 for no match.
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in zip(CATEGORIES, CLASSES, strict=True)],
    }


def write_coco(folder: Path, change: Callable[[dict[str, list[dict[str, object]]]], object] = lambda _: None) -> Path:
    """Write the set in COCO's format, changed."""
    write_pictures(folder / "val2017")
    said = coco_annotations()
    change(said)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(said))
    return folder


def found(*boxes: tuple[float, ...]) -> Found:
    """Give what was found: label, score, left, top, right, bottom of each."""
    rows = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 6)
    return Found(rows[:, 2:], rows[:, 1], rows[:, 0].long())


def answers(images: Sequence[LabelledImage], shift: float = 0, offset: int = 0) -> list[Found]:
    """Give every object, so many pixels too far to the right, its label counted from `offset`."""
    return [
        found(*((o.label + offset, 0.9, o.box[0] + shift, o.box[1], o.box[0] + o.box[2] + shift, o.box[1] + o.box[3])
                for o in image.objects))
        for image in images
    ]  # fmt: skip


class Knowing:
    """A detector that knows which image it sees by its shade, and gives what it was told."""

    kind, resizing, image_size = "a detector that knows", "not at all", (100, 100)
    resizes_itself = False

    def __init__(
        self, told: Sequence[Found], *, outputs: int = 3, names: tuple[str, ...] = (), background: bool = False
    ) -> None:
        self.told, self.outputs, self.names, self.background = told, outputs, names, background
        self.batches: list[int] = []

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        self.batches.append(len(images))
        return [self.told[int(image[0, 0, 0]) // 10] for image in images]
