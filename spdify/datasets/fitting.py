"""How an image becomes an input: the same for PyTorch and ONNX, for images in memory and on the disk."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from spdify.datasets.images import MAX_PIXELS
from spdify.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spdify.datasets.images import Pixels
    from spdify.records import Preprocessing

CHUNK = 1024  # images that are resized at once
IMAGE_AXES = 3
CROP_MODES = ("center", "squash")


def fit_to(images: Tensor, how: Preprocessing) -> Tensor:
    """Resize and crop images, as timm does for evaluation.

    The shorter side becomes size / crop_pct, then the centre is cut out (`center`); or both sides do (`squash`).

    Args:
        images: (…, C, h, w), uint8.
        how: Size, interpolation, crop.

    Returns:
        (…, C, H, W), uint8; the images themselves where nothing is to be done.

    Raises:
        UsageError: The crop mode is one that is not known here.
        DataError: The inputs are no images, or the images would become larger than any that is read.
    """
    if how.crop_mode not in CROP_MODES:
        raise UsageError(f"cannot crop images by {how.crop_mode!r}: expected one of {', '.join(CROP_MODES)}")
    height, width = image_size(how)
    wanted = [math.floor(height / how.crop_pct), math.floor(width / how.crop_pct)]
    if how.crop_mode == "center":
        wanted = _covering(wanted[0], wanted[1], *images.shape[-2:])
    if math.prod(wanted) > MAX_PIXELS:
        raise DataError(
            f"cannot resize an image of {images.shape[-1]}x{images.shape[-2]} pixels to {wanted[1]}x{wanted[0]}: "
            f"that is more than {MAX_PIXELS:,}",
            hint="An image is far from square, or crop_pct is very small.",
        )
    if wanted != list(images.shape[-2:]):
        images = functional.resize(images, wanted, interpolation=_interpolation(how), antialias=True)
    return images if images.shape[-2:] == (height, width) else functional.center_crop(images, [height, width])


def image_size(how: Preprocessing) -> tuple[int, int]:
    """Give the height and width of the inputs.

    Raises:
        DataError: They are no images.
    """
    if len(how.input_size) != IMAGE_AXES:
        raise DataError(f"cannot make inputs of size {how.input_size} of images: expected C,H,W")
    return how.input_size[1], how.input_size[2]


def _covering(height: int, width: int, old_height: int, old_width: int) -> list[int]:
    """Give the smallest size of the image's own proportions that covers another, rounded down as torchvision does."""
    if height * old_width >= width * old_height:
        return [height, height * old_width // old_height]
    return [width * old_height // old_width, width]


def _interpolation(how: Preprocessing) -> InterpolationMode:
    try:
        return InterpolationMode(how.interpolation)
    except ValueError:
        known = ", ".join(mode.value for mode in InterpolationMode)
        raise UsageError(f"cannot resize by {how.interpolation!r}: expected one of {known}") from None


def fitted(pixels: Pixels, how: Preprocessing) -> Pixels:
    """Resize and crop all images of a split that is in memory, once."""
    size = tuple(how.input_size[1:])
    if tuple(pixels.images.shape[-2:]) == size and how.crop_pct == 1:
        return pixels
    images = torch.cat([fit_to(chunk, how) for chunk in torch.split(pixels.images, CHUNK)])
    return replace(pixels, images=images)


def check_normalisation(mean: Sequence[float], deviation: Sequence[float], channels: int) -> None:
    """Refuse a mean and a deviation that cannot be used.

    Raises:
        UsageError: They are not one per channel, not finite, or a deviation is not positive.
    """
    if not len(mean) == len(deviation) == channels:
        raise UsageError(f"cannot normalise {channels} channels by {len(mean)} means and {len(deviation)} deviations")
    if not all(map(math.isfinite, (*mean, *deviation))) or min(deviation) <= 0:
        raise UsageError(f"cannot normalise by mean {tuple(mean)} and deviation {tuple(deviation)}")


def normalise(images: Tensor, how: Preprocessing) -> Tensor:
    """Turn uint8 images into float32 inputs: from 0 to 1, then less the mean, over the deviation."""
    mean = images.new_tensor(how.mean, dtype=torch.float64)[:, None, None]
    deviation = images.new_tensor(how.std, dtype=torch.float64)[:, None, None]
    # In place, in two passes: this is most of the time that a batch of small images takes.
    return images.float().mul_((1 / (255 * deviation)).float()).sub_((mean / deviation).float())
