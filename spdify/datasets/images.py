"""Images with labels: in memory as one tensor, or as files that are read when they are asked for."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from spdify.errors import DataError, require_plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODES = {1: "L", 3: "RGB"}
#: By content, not by suffix. Others are kept out: for PostScript, Pillow starts Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "GIF", "TIFF", "WEBP")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # of one image: above it PIL suspects an attack
MAX_PROPORTION = 256
MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded images that are kept in memory at most. Fixed: what a run does must not depend on what is free."""

_READERS = 8
_ON_ITS_SIDE = range(5, 9)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Pixels:
    """Images in memory.

    Attributes:
        images: (N, C, H, W), uint8.
        labels: (N,), int64.
        names: Of the images, for messages; empty where they have none.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.labels)

    def subset(self, indices: Tensor) -> Pixels:
        """Give some of the images, in the order of `indices`."""
        names = tuple(self.names[i] for i in indices.tolist()) if self.names else ()
        return Pixels(self.images[indices], self.labels[indices], names)

    def read(self, index: int) -> Tensor:
        """Give one image, (C, H, W), uint8."""
        return self.images[index]

    def digest(self) -> str:
        """Hash labels and pixels."""
        return _digest(self.labels.numpy().tobytes(), self.images.numpy().tobytes())


@dataclass(frozen=True)
class Files:
    """Images on the disk.

    Attributes:
        paths: One per image.
        labels: (N,), int64.
        channels: 1 or 3: what each image is converted to.
    """

    paths: tuple[Path, ...]
    labels: Tensor
    channels: int

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.labels)

    def subset(self, indices: Tensor) -> Files:
        """Give some of the images, in the order of `indices`."""
        return replace(self, paths=tuple(self.paths[i] for i in indices.tolist()), labels=self.labels[indices])

    def read(self, index: int) -> Tensor:
        """Read one image, (C, H, W), uint8.

        Raises:
            DataError: It cannot be decoded.
        """
        return decode(self.paths[index], self.channels)

    def digest(self) -> str:
        """Hash labels, names and sizes of the files; their content is not read."""
        names = (os.fsencode("/".join(p.parts[-3:])) + f" {p.stat().st_size}\n".encode() for p in self.paths)
        return _digest(self.labels.numpy().tobytes(), *names)


Images: TypeAlias = Pixels | Files


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def decode(path: Path, channels: int, *, upright: bool = False) -> Tensor:
    """Decode an image file.

    Args:
        path: Of one of `FORMATS`, whatever its suffix says.
        channels: 1 (grey) or 3 (RGB).
        upright: Whether to turn an image that its EXIF data says lies on its side.

    Returns:
        (C, H, W), uint8. Of 16-bit images the upper 8 bits.

    Raises:
        DataError: It is no image, damaged, cut short, or has more pixels than PIL takes for harmless.
    """
    try:
        with _opened(path) as opened:
            _require_size(path, opened)
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
                array = np.repeat(grey[:, :, None], channels, axis=2)
            else:
                array = np.array(image.convert(MODES[channels]))
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    pixels = torch.from_numpy(array)
    return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()  # noqa: PLR2004 - (H, W)


def upright_size(path: Path) -> tuple[int, int]:
    """Give width and height of an image as it is seen upright, from its header.

    Raises:
        DataError: It has none that can be read.
    """
    try:
        with _opened(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
            return image.size[::-1] if turned else image.size
    except Exception as error:
        raise _unreadable(path, error) from error


def _opened(path: Path) -> Image.Image:
    """Open an image of a format that Pillow reads by itself; what would never end is none."""
    require_plain(path)
    Image.init()  # else it knows but some of them
    return Image.open(path, formats=FORMATS)


def _unreadable(path: Path, error: Exception) -> DataError:
    # Decoders of damaged files raise whatever they come upon.
    words = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        words = "Pillow does not know what it is"
    return DataError(f"cannot read the image {path}: {words}", hint=CORRUPT_HINT)


def _require_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"cannot read the image {path}: {image.width}x{image.height} pixels are more than {MAX_PIXELS:,}",
            hint=CORRUPT_HINT,
        )
    if max(image.size) > MAX_PROPORTION * min(image.size):  # its shorter side is what is made as large as the input
        raise DataError(
            f"cannot read the image {path}: of {image.width}x{image.height} pixels, one side is more than "
            f"{MAX_PROPORTION} times the other",
            hint=CORRUPT_HINT,
        )


CORRUPT_HINT = "Mend or remove the file, or pass --skip-corrupt to leave such images out."


def readable(files: Files) -> tuple[Files, tuple[Path, ...]]:
    """Decode every image once; give those that can be read, and the paths of the others."""
    with ThreadPoolExecutor(_READERS) as pool:
        good = list(pool.map(partial(_can_decode, channels=files.channels), files.paths))
    bad = tuple(path for path, fine in zip(files.paths, good, strict=True) if not fine)
    return files.subset(torch.tensor(good).nonzero()[:, 0]), bad


def _can_decode(path: Path, channels: int) -> bool:
    try:
        decode(path, channels)
    except DataError:
        return False
    return True


def in_memory(files: Files, *, limit: int = MEMORY_LIMIT) -> Pixels | None:
    """Read all images into memory.

    Args:
        files: What to read.
        limit: Bytes that they may have.

    Returns:
        None where they differ in size or are larger than the limit.

    Raises:
        DataError: One cannot be decoded.
    """
    first = files.read(0)
    if len(files) * first.numel() > limit:
        return None
    images = torch.empty((len(files), *first.shape), dtype=torch.uint8)

    def fill(indices: Sequence[int]) -> bool:
        for index in indices:
            image = files.read(index)
            if image.shape != first.shape:
                return False
            images[index] = image
        return True

    chunks = [range(start, min(start + 256, len(files))) for start in range(0, len(files), 256)]
    pool = ThreadPoolExecutor(_READERS)
    try:
        if not all(pool.map(fill, chunks)):  # stops at the first that differs
            return None
    finally:
        pool.shutdown(cancel_futures=True)  # nor does a fault wait for the rest
    return Pixels(images, files.labels, tuple(map(str, files.paths)))
