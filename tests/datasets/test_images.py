from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from spdify.datasets.images import MAX_PIXELS, MAX_PROPORTION, Files, Pixels, decode, in_memory, readable
from spdify.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def files(folder: Path) -> Files:
    paths = tuple(sorted(folder.rglob("*.png")))
    return Files(paths, torch.zeros(len(paths), dtype=torch.int64), 3)


def test_decodes_every_mode(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for mode, array in {
        "L": grey, "RGB": np.stack([grey] * 3, axis=2), "RGBA": np.stack([grey] * 3 + [grey * 0 + 255], axis=2),
        "I;16": grey.astype(np.uint16) * 256, "1": grey > 5, "P": grey,
    }.items():  # fmt: skip
        image = Image.fromarray(array) if mode != "P" else Image.fromarray(array).convert("P")
        image.save(tmp_path / "image.png")
        decoded = decode(tmp_path / "image.png", 3)
        assert decoded.shape == (3, 3, 4), mode
        assert decoded.dtype == torch.uint8
        expected = torch.from_numpy((grey > 5) * np.uint8(255) if mode == "1" else grey)
        assert all(torch.equal(channel, expected) for channel in decoded), mode
        assert decode(tmp_path / "image.png", 1).shape == (1, 3, 4)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_told_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the image .*bad\.png") as caught:
        decode(tmp_path / "bad.png", 3)
    assert "--skip-corrupt" in caught.value.hint


def test_truncated_image(write_images: Callable[..., Path]) -> None:
    path = write_images("a", ("x",), 1, (50, 50)) / "x" / "0.png"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated"):
        decode(path, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match="pixels are more than"):
        decode(tmp_path / "huge.png", 3)


def test_in_memory_where_all_are_alike_and_fit(write_images: Callable[..., Path]) -> None:
    listed = files(write_images("a", ("x", "y"), 300))  # more than one chunk
    pixels = in_memory(listed)
    assert isinstance(pixels, Pixels)
    assert pixels.images.shape == (600, 3, 8, 6)
    assert all(torch.equal(pixels.read(i), listed.read(i)) for i in (0, 299, 300, 599))
    assert pixels.names[3] == str(listed.paths[3])
    assert in_memory(listed, limit=600 * 3 * 8 * 6 - 1) is None
    write_images("a/z", ("x",), 1, (9, 6))
    assert in_memory(files(listed.paths[0].parents[1])) is None


def test_readable_leaves_out_what_is_not(write_images: Callable[..., Path]) -> None:
    folder = write_images("a", ("x",), 4)
    (folder / "x" / "1.png").write_bytes(b"")
    kept, bad = readable(files(folder))
    assert [path.name for path in bad] == ["1.png"]
    assert [path.name for path in kept.paths] == ["0.png", "2.png", "3.png"]
    assert len(kept.labels) == 3


def test_names_that_are_no_text(write_images: Callable[..., Path]) -> None:
    folder = write_images("a", ("x",), 1)
    (folder / "x" / "0.png").rename(folder / "x" / "\udcff.png")
    assert len(files(folder).digest()) == 64


def test_digest_tells_images_apart(write_images: Callable[..., Path]) -> None:
    listed = files(write_images("a", ("x", "y"), 3))
    pixels = in_memory(listed)
    assert isinstance(pixels, Pixels)
    other = Pixels(pixels.images.clone(), pixels.labels)
    assert other.digest() == pixels.digest()
    other.images[0, 0, 0, 0] += 1
    assert other.digest() != pixels.digest()
    assert Pixels(pixels.images, pixels.labels + 1).digest() != pixels.digest()
    before = listed.digest()
    listed.paths[0].write_bytes(listed.paths[0].read_bytes() + b"more")
    assert listed.digest() != before


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **_: started.append(args))
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="does not know what it is"):
        decode(tmp_path / "a.jpg", 3)
    assert not started


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a plain file"):
        decode(tmp_path / "a.png", 3)


def test_an_image_far_from_square_is_refused(tmp_path: Path) -> None:
    Image.new("L", (1, MAX_PROPORTION + 1)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="one side is more than"):
        decode(tmp_path / "a.png", 3)
    Image.new("L", (1, MAX_PROPORTION)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 1).shape == (1, MAX_PROPORTION, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_the_content_says_what_it_is(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", kind)
    assert decode(tmp_path / "a.jpg", 3).shape == (3, 4, 4)
