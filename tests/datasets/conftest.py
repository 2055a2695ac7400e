"""Folders of small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes `count` random images per class below a folder, each class of its own brightness."""

    def write(folder: str, classes: tuple[str, ...], count: int, size: tuple[int, int] = (8, 6)) -> Path:
        random = np.random.default_rng(len(folder))
        for level, name in enumerate(classes):
            place = tmp_path / folder / name
            place.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = random.integers(60 * level, 60 * level + 60, (*size, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
        return tmp_path / folder

    return write
