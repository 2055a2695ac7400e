from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from spdify.datasets import Pixels, check_normalisation, fit_to, fitted, normalise
from spdify.errors import DataError, UsageError
from spdify.records import Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def how(height: int, width: int, **changes: object) -> Preprocessing:
    return Preprocessing(input_size=(3, height, width), mean=MEAN, std=STD).model_copy(update=changes)


def images(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_nothing_to_do_gives_the_same() -> None:
    given = images(8, 8)
    assert fit_to(given, how(8, 8)) is given
    pixels = Pixels(given, torch.zeros(2))
    assert fitted(pixels, how(8, 8)) is pixels


@pytest.mark.parametrize("size", [(50, 40), (40, 50), (33, 47), (16, 16), (200, 31)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_sizes_and_values_are_those_of_timm(size: tuple[int, int], crop: float, interpolation: str) -> None:
    given = images(*size)
    settings = how(32, 32, crop_pct=crop, interpolation=interpolation)
    found = normalise(fit_to(given, settings), settings)
    theirs = create_transform(32, interpolation=interpolation, mean=MEAN, std=STD, crop_pct=crop)
    expected = torch.stack([theirs(Image.fromarray(np.asarray(image.permute(1, 2, 0)))) for image in given])
    assert found.shape == expected.shape == (2, 3, 32, 32)
    # PIL and torchvision round the resized levels apart by at most one or two of 255 here and there.
    assert (found - expected).abs().mean() < 0.01
    assert (found - expected).abs().max() < 3 / 255 / min(STD)


def test_squash_keeps_all_of_the_image() -> None:
    given = torch.zeros(1, 3, 20, 40, dtype=torch.uint8)
    given[..., :2] = 255
    assert fit_to(given, how(16, 16, crop_mode="squash"))[..., 0].float().mean() > 150
    assert fit_to(given, how(16, 16))[..., 0].max() == 0
    with pytest.raises(UsageError, match="cannot crop images by 'border'"):
        fit_to(given, how(16, 16, crop_mode="border"))
    with pytest.raises(UsageError, match="cannot resize by 'random'"):
        fit_to(given, how(16, 16, interpolation="random"))


def test_a_split_is_fitted_as_its_images_are() -> None:
    given = images(20, 12, count=5)
    whole = fitted(Pixels(given, torch.zeros(5)), how(8, 8))
    assert torch.equal(whole.images, torch.stack([fit_to(image, how(8, 8)) for image in given]))


def test_normalise() -> None:
    found = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), how(1, 1))
    assert found.flatten().tolist() == pytest.approx([(1 - m) / s for m, s in zip(MEAN, STD, strict=True)], rel=1e-6)


@pytest.mark.parametrize(
    ("mean", "deviation", "words"),
    [
        ((0.5,), (0.5,), "3 channels by 1 means"),
        ((0.5, 0.5, float("nan")), STD, "cannot normalise by mean"),
        (MEAN, (0.5, 0.0, 0.5), "cannot normalise by mean"),
        (MEAN, (0.5, float("inf"), 0.5), "cannot normalise by mean"),
    ],
)
def test_normalisations_that_cannot_be_used(mean: tuple[float, ...], deviation: tuple[float, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_normalisation(mean, deviation, 3)


def test_images_do_not_grow_without_end() -> None:
    how = Preprocessing(input_size=(1, 1024, 1024), mean=(0,), std=(1,))
    with pytest.raises(DataError, match="cannot resize an image of 1x1000 pixels"):
        fit_to(torch.zeros(1, 1000, 1, dtype=torch.uint8), how)
