"""COCO's average precision, by pycocotools."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from spdify.errors import DataError, SpdifyError
from spdify.records import AveragePrecision, ObjectCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.datasets import LabelledImage
    from spdify.detection.found import Found

SMALL, MEDIUM = 32.0**2, 96.0**2  # square pixels: up to the first small, up to the second medium
NOTHING = -1.0  # what COCOeval gives where there is nothing to find
# Places of the figures among those that COCOeval sums up.
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar100": 8}


def require_pycocotools() -> None:
    """Refuse to begin what could not be finished.

    Raises:
        SpdifyError: pycocotools is not installed.
    """
    _pycocotools()


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - an optional package
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    except ImportError as error:
        raise SpdifyError(
            f"cannot compute average precision: {error}", hint="pip install 'spdify[detection]'"
        ) from error
    return COCO, COCOeval


def average_precision(truth: Sequence[LabelledImage], found: Sequence[Found], classes: int) -> AveragePrecision:
    """Compare what was found with what there is.

    Args:
        truth: The images, with their objects.
        found: What was found in each of them; labels are indices of classes, as those of the objects.
        classes: Number of classes.

    Raises:
        DataError: There are no images, or not as many findings.
        SpdifyError: pycocotools is not installed.
    """
    if not truth or len(truth) != len(found):
        raise DataError(f"cannot compare {len(found)} findings with {len(truth)} images")
    coco, coco_eval = _pycocotools()
    with redirect_stdout(io.StringIO()):  # it has no other way to be quiet
        evaluation = coco_eval(
            _indexed(coco, len(truth), _objects(truth), classes),
            _indexed(coco, len(truth), _boxes(found), classes),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {name: float(evaluation.stats[place]) for name, place in STATS.items()}
    return AveragePrecision(**{name: None if value == NOTHING else value for name, value in figures.items()})


def _objects(truth: Sequence[LabelledImage]) -> list[dict[str, Any]]:
    return [
        {"image_id": i, "category_id": o.label, "bbox": list(o.box), "area": o.area, "iscrowd": int(o.crowd)}
        for i, image in enumerate(truth)
        for o in image.objects
    ]


def _boxes(found: Sequence[Found]) -> list[dict[str, Any]]:
    entries = []
    for i, one in enumerate(found):
        for box, score, label in zip(one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True):
            left, top, right, bottom = box
            width, height = right - left, bottom - top
            entries.append(
                {
                    "image_id": i, "category_id": label, "bbox": [left, top, width, height], "area": width * height,
                    "iscrowd": 0, "score": score,
                }
            )  # fmt: skip
    return entries


def _indexed(coco: Any, images: int, annotations: list[dict[str, Any]], classes: int) -> Any:  # noqa: ANN401 - untyped
    index = coco()
    index.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i} for i in range(classes)],
        # From 1: COCOeval takes the number 0 for no match.
        "annotations": [{**entry, "id": number} for number, entry in enumerate(annotations, start=1)],
    }
    index.createIndex()
    return index


def count_objects(truth: Sequence[LabelledImage]) -> ObjectCounts:
    """Count what is to be found, by size, with COCOeval's borders."""
    areas = [thing.area for image in truth for thing in image.objects if not thing.crowd]
    return ObjectCounts(
        total=len(areas),
        small=sum(area <= SMALL for area in areas),
        medium=sum(SMALL <= area <= MEDIUM for area in areas),
        large=sum(area >= MEDIUM for area in areas),
        crowds=sum(thing.crowd for image in truth for thing in image.objects),
    )
