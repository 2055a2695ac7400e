"""Images with the objects in them: boxes, classes, and what is not counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from spdify.datasets.images import CORRUPT_HINT, decode
from spdify.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

RGB = 3
Box: TypeAlias = tuple[float, float, float, float]


class LabelledObject(NamedTuple):
    """One object in an image.

    Attributes:
        label: Its class, an index.
        box: Left, top, width and height in pixels of the image.
        area: In square pixels; in COCO's files that of the object's outline, else that of the box.
        crowd: Whether it is a group that nobody has counted: what is found in it is neither right nor wrong.
    """

    label: int
    box: Box
    area: float
    crowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """An image file and the objects in it.

    Attributes:
        path: The file.
        width: In pixels, as its labels have it.
        height: Likewise.
        objects: What is in it; may be empty.
    """

    path: Path
    width: int
    height: int
    objects: tuple[LabelledObject, ...] = ()

    def read(self) -> Tensor:
        """Read the image, (3, height, width), uint8.

        An image whose EXIF data says that it lies on its side is turned upright, as labelling tools show it; where its
        labels are for the image as it lies (its width and height tell), it stays.

        Raises:
            DataError: It cannot be decoded, or has another size than its labels are for.
        """
        upright = decode(self.path, RGB, upright=True)
        if tuple(upright.shape[1:]) == (self.height, self.width):
            return upright
        lying = decode(self.path, RGB)
        if tuple(lying.shape[1:]) == (self.height, self.width):
            return lying
        raise DataError(
            f"cannot use the image {self.path}: its labels are for {self.width}x{self.height} pixels, it has "
            f"{lying.shape[2]}x{lying.shape[1]}",
            hint="Boxes in pixels fit one size only: give the images that were labelled.",
        )


@dataclass(frozen=True)
class DetectionSet:
    """Images of one split, with their objects.

    Attributes:
        name: Of the folder or file.
        split: `train`, `validation`, `test`, or the name of the file that was given.
        classes: Names, by index.
        images: In the order of their listing.
        category_ids: COCO's number of each class; None where the data has no such numbers.
        skipped: Files that could not be read.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    category_ids: tuple[int, ...] | None = None
    skipped: tuple[Path, ...] = ()

    def without_corrupt(self) -> DetectionSet:
        """Decode every image once and leave out those that cannot be read."""
        bad = {image.path for image in self.images if not _can_read(image)}
        kept = tuple(image for image in self.images if image.path not in bad)
        return replace(self, images=kept, skipped=(*self.skipped, *sorted(bad)))


def _can_read(image: LabelledImage) -> bool:
    try:
        image.read()
    except DataError:
        return False
    return True


def require_images(data: DetectionSet) -> None:
    """Refuse a split that nothing can be measured on.

    Raises:
        DataError: It has no image, or no object in any.
    """
    what = f"the {data.split} images of {data.name}"
    if not data.images:
        raise DataError(
            f"cannot measure on {what}: none of {len(data.skipped)} can be read"
            if data.skipped
            else f"cannot measure on {what}: there are none"
        )
    if not any(not thing.crowd for image in data.images for thing in image.objects):
        raise DataError(
            f"cannot measure on {what}: there is no object in any of {len(data.images)}",
            hint="An image without a label file counts as one without objects: see that the label files are there.",
        )


def require_file(path: Path) -> None:
    """Refuse an image that is not there.

    Raises:
        DataError: There is no such file.
    """
    if not is_file(path):
        raise DataError(f"cannot read the image {path}: there is no such file", hint=CORRUPT_HINT)


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; false where no file could have it."""
    try:
        return path.is_file()
    except OSError:  # for example: the name is too long
        return False


def all_finite(*numbers: float) -> bool:
    """Whether none is infinite, no number, or too large for one with a fraction."""
    try:
        return all(map(math.isfinite, numbers))
    except OverflowError:
        return False
