"""Boxes in COCO's format: a folder of images and one JSON file of annotations per split."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from spdify.datasets.boxes import Box, DetectionSet, LabelledImage, LabelledObject, all_finite, is_file, require_file
from spdify.datasets.paths import real_name
from spdify.errors import DataError, UsageError, require_plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX = "instances_"
WORDS = {"validation": "val", "test": "test", "train": "train"}  # in the order of preference
NUMBERS = 4  # of a box: left, top, width, height
LAYOUT_HINT = "Expected PATH/annotations/instances_val*.json with the images in PATH/val*, as COCO lays it out."


def find_annotations(folder: Path) -> tuple[Path, ...]:
    """Give the files of boxes below a folder."""
    return tuple(sorted(folder.glob(f"annotations/{PREFIX}*.json")))


def open_coco(path: Path, split: str | None, *, skip_corrupt: bool) -> DetectionSet:
    """Read a split in COCO's format.

    Args:
        path: The folder with `annotations` in it, or the JSON file.
        split: `validation`, `test` or `train`; by default the first of these that there is.
        skip_corrupt: Whether to leave out images that are not there.

    Raises:
        DataError: The file is of another form, or names an image that is not there.
        UsageError: There is no such split.
    """
    if path.is_dir():
        file, name = _of_split(path, split)
    elif split is not None:
        raise UsageError(
            f"cannot choose the {split} images of {path}: the file is one split", hint="Leave out --split."
        )
    else:
        file, name = path, path.stem
    said = _read(file)
    categories = _categories(file, said)
    folder = _image_folder(file, said)
    objects = _objects(file, said, {number: i for i, number in enumerate(categories)})
    images, skipped = [], []
    for entry in said["images"]:
        image = _image(file, entry, folder, objects.get(entry["id"], ()))
        if skip_corrupt and not is_file(image.path):
            skipped.append(image.path)
            continue
        require_file(image.path)
        images.append(image)
    return DetectionSet(
        real_name(path), name, tuple(categories.values()), tuple(images), tuple(categories), tuple(skipped)
    )


def _of_split(folder: Path, split: str | None) -> tuple[Path, str]:
    found: dict[str, list[Path]] = {name: [] for name in WORDS}
    for file in find_annotations(folder):
        named = [name for name, word in WORDS.items() if file.stem.removeprefix(PREFIX).startswith(word)]
        for name in named:
            found[name].append(file)
    there = {name: files for name, files in found.items() if files}
    if not there:
        raise DataError(
            f"cannot read boxes from {folder}: no file says train, val or test",
            hint=f"{LAYOUT_HINT} Or give the file itself: --data FILE.json.",
        )
    if split is not None and split not in there:
        raise UsageError(
            f"cannot measure on the {split} images of {folder}: there are none",
            hint=f"Expected one of {', '.join(there)}.",
        )
    name = split or next(iter(there))
    if len(there[name]) > 1:
        raise DataError(
            f"cannot tell which are the {name} images of {folder}: {', '.join(file.name for file in there[name])}",
            hint="Give the file itself: --data FILE.json.",
        )
    return there[name][0], name


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        require_plain(file)
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the annotations {file}: {error}") from error
    for key in ("images", "annotations", "categories"):
        entries = said.get(key) if isinstance(said, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(e, dict) and isinstance(e.get("id"), (int, str)) for e in entries
        ):
            raise DataError(
                f"cannot read the annotations {file}: expected a list {key!r}, each entry with an id",
                hint="Expected COCO's object detection format; its test images come without annotations.",
            )
    return said  # type: ignore[no-any-return]  # what JSON holds has no type


def _categories(file: Path, said: Mapping[str, list[dict[str, Any]]]) -> dict[int, str]:
    """Give the names by COCO's numbers, in ascending order: the order of the classes."""
    categories = {entry["id"]: entry.get("name") for entry in said["categories"]}
    whole = all(isinstance(number, int) for number in categories)
    if not categories or not whole or not all(isinstance(name, str) for name in categories.values()):
        raise DataError(f"cannot read the annotations {file}: its categories are not numbers with names")
    return dict(sorted(categories.items()))


def _image_folder(file: Path, said: Mapping[str, list[dict[str, Any]]]) -> Path:
    """Find the folder of the images by the first of them."""
    part = file.stem.removeprefix(PREFIX)
    roots = [file.parent.parent, file.parent] if file.parent.name == "annotations" else [file.parent]
    places = [place for root in roots for place in (root / part, root / "images" / part, root / "images", root)]
    first = next((str(entry.get("file_name")) for entry in said["images"]), None)
    if first is None:
        raise DataError(f"cannot read the annotations {file}: it lists no images")
    # Where the first one is missing, it is one image that is, if its folder is there.
    there = [place for place in places if is_file(place / first)] or [p for p in places[:2] if p.is_dir()]
    if not there:
        looked = ", ".join(map(str, places))
        raise DataError(f"cannot find the images of {file}: {first} is in none of {looked}", hint=LAYOUT_HINT)
    return there[0]


def _objects(
    file: Path, said: Mapping[str, list[dict[str, Any]]], index: Mapping[int, int]
) -> dict[Any, tuple[LabelledObject, ...]]:
    """Give the objects by image."""
    known = {entry["id"] for entry in said["images"]}
    found = defaultdict(list)
    for entry in said["annotations"]:
        image, category = (_id(entry.get(key)) for key in ("image_id", "category_id"))
        if image not in known or category not in index:
            what = f"image {image}" if image not in known else f"category {category}"
            raise DataError(f"cannot read annotation {entry['id']} in {file}: there is no {what}")
        box = _box(file, entry)
        area = entry.get("area", box[2] * box[3])
        if not isinstance(area, (int, float)) or not all_finite(area) or area < 0:
            raise DataError(f"cannot read annotation {entry['id']} in {file}: its area is {area}")
        label = index[category]  # type: ignore[index]  # a number, by the lines above
        found[image].append(LabelledObject(label, box, area, crowd=bool(entry.get("iscrowd", 0))))
    return {image: tuple(objects) for image, objects in found.items()}


def _id(value: object) -> int | str | None:
    """Give what may be the id of something; a list, say, may not."""
    return value if isinstance(value, (int, str)) else None


def _box(file: Path, entry: Mapping[str, Any]) -> Box:
    box = entry.get("bbox")
    numbers = isinstance(box, list) and len(box) == NUMBERS and all(isinstance(n, (int, float)) for n in box)
    if not numbers or not all_finite(*box) or min(box[2:]) < 0:  # type: ignore[index, misc]  # a list, by the line above
        raise DataError(
            f"cannot read annotation {entry['id']} in {file}: its bbox is {box}",
            hint="Expected [left, top, width, height] in pixels.",
        )
    return tuple(map(float, box))  # type: ignore[arg-type, return-value]  # a list of four, by the lines above


def _image(file: Path, entry: Mapping[str, Any], folder: Path, objects: tuple[LabelledObject, ...]) -> LabelledImage:
    size, name = (entry.get("width"), entry.get("height")), entry.get("file_name")
    if not isinstance(name, str) or not all(isinstance(n, int) and n > 0 for n in size):
        raise DataError(f"cannot read image {entry['id']} in {file}: expected file_name, width and height")
    return LabelledImage(folder / name, size[0], size[1], objects)  # type: ignore[arg-type]  # both are numbers
