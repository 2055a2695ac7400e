"""From a folder or file to labelled boxes, in whichever of the two formats it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.datasets.boxes import DetectionSet, require_images
from spdify.datasets.coco_format import find_annotations, open_coco
from spdify.datasets.paths import home_path
from spdify.datasets.yolo_format import YAML_SUFFIXES, find_yamls, open_yolo
from spdify.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

JSON_SUFFIX = ".json"
FORMS_HINT = (
    "Expected YOLO's format (a data yaml, or the folder that holds one) or COCO's (a folder with "
    "annotations/instances_*.json, or such a file)."
)


def is_detection_data(spec: str) -> bool:
    """Whether a folder or file has the form of labelled boxes; its content may still be at fault."""
    path = home_path(spec)
    try:
        if path.is_dir():
            return bool(find_annotations(path) or find_yamls(path))
        return path.suffix.lower() in (*YAML_SUFFIXES, JSON_SUFFIX)
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for example: the name is too long
        return False


def open_detection_data(spec: str, *, split: str | None = None, skip_corrupt: bool = False) -> DetectionSet:
    """Open a split of labelled boxes.

    Args:
        spec: A folder, a data yaml or a JSON file of annotations.
        split: `validation`, `test` or `train`; by default the first of these that there is.
        skip_corrupt: Leave images out that cannot be read, and count them; all are decoded once for it.

    Raises:
        DataError: There is no such data, or it cannot be read.
        UsageError: There is no such split.
    """
    path = home_path(spec)
    if not _exists(path):
        raise DataError(f"cannot read boxes from {spec}: there is no such folder or file", hint=FORMS_HINT)
    if not is_detection_data(spec):
        raise DataError(f"cannot read boxes from {spec}: it has neither of the two forms", hint=FORMS_HINT)
    annotations = find_annotations(path) if path.is_dir() else ()
    if annotations and find_yamls(path):
        raise DataError(
            f"cannot tell what {spec} is: it has a data yaml and COCO's annotations",
            hint="Give the yaml or the JSON file itself.",
        )
    is_coco = bool(annotations) or path.suffix.lower() == JSON_SUFFIX
    data = (open_coco if is_coco else open_yolo)(path, split, skip_corrupt=skip_corrupt)
    if skip_corrupt:
        data = data.without_corrupt()
    require_images(data)
    return data
