from __future__ import annotations

import hashlib
import pickle
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torchvision

from spdify.datasets import DataOptions, Files, Pixels, mean_and_deviation, open_data
from spdify.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def test_digits_come_with_the_package() -> None:
    digits = open_data("digits")
    assert digits.classes == tuple("0123456789")
    counts = {name: len(images) for name, images in digits.splits.items()}
    assert counts == {"train": 1295, "validation": 143, "test": 359}
    assert digits.size == (32, 32)
    assert not digits.mirrored  # a mirrored 2 is no 2
    assert isinstance(digits.train, Pixels)
    assert digits.train.images.shape == (1295, 3, 8, 8)
    assert digits.train.images.max() == 255
    assert open_data("digits", DataOptions(channels=1)).train.read(0).shape == (1, 8, 8)


def test_splits_share_nothing_and_stay_the_same() -> None:
    first, again = open_data("digits"), open_data("digits", DataOptions(validation_share=0.1))
    assert first.digest() == again.digest()
    seen = [bytes(image.numpy().tobytes()) for images in first.splits.values() for image in images.images]
    assert len(seen) == 1797
    other = open_data("digits", DataOptions(validation_share=0.3))
    assert torch.equal(other.test.images, first.test.images)  # type: ignore[union-attr]
    assert len(other.validation or ()) == pytest.approx(0.3 * (1797 - 359), abs=5)
    assert open_data("digits", DataOptions(validation_share=0)).validation is None


def test_every_class_is_in_every_split() -> None:
    for images in open_data("digits").splits.values():
        assert images.labels.unique().tolist() == list(range(10))


def test_folder(write_images: Callable[..., Path], tmp_path: Path) -> None:
    write_images("birds/train", ("a", "b"), 10)
    write_images("birds/test", ("a", "b"), 2)
    found = open_data(f"imagefolder:{tmp_path / 'birds'}")
    assert found.name == "imagefolder:birds"
    assert found.spec == f"imagefolder:{tmp_path / 'birds'}"
    assert isinstance(found.train, Pixels)
    assert found.size == (8, 6)
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 18, "validation": 2, "test": 4}
    with pytest.raises(DataError, match="cannot hold back 4% of imagefolder:birds for validation"):
        open_data(found.spec, DataOptions(validation_share=0.04))


def test_folder_of_many_sizes_stays_on_the_disk(write_images: Callable[..., Path], tmp_path: Path) -> None:
    write_images("birds/train", ("a", "b"), 10)
    write_images("birds/test", ("a", "b"), 2, (9, 9))
    write_images("birds/test/a", ("b",), 1, (10, 9))
    found = open_data(f"imagefolder:{tmp_path / 'birds'}")
    assert all(isinstance(images, Files) for images in found.splits.values())
    assert found.size is None
    mean, deviation = mean_and_deviation(found.train)
    assert len(mean) == len(deviation) == 3


def test_corrupt_images(write_images: Callable[..., Path]) -> None:
    folder = write_images("birds", ("a", "b"), 10)
    (folder / "a" / "3.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"cannot read the image .*3\.png"):
        open_data(f"imagefolder:{folder}")
    found = open_data(f"imagefolder:{folder}", DataOptions(skip_corrupt=True))
    assert [path.name for path in found.skipped] == ["3.png"]
    assert sum(map(len, found.splits.values())) == 19
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 20 can be decoded"):
        open_data(f"imagefolder:{folder}", DataOptions(skip_corrupt=True))


def test_too_few_images_to_hold_back(write_images: Callable[..., Path]) -> None:
    folder = write_images("birds", ("a", "b"), 2)
    with pytest.raises(DataError, match="cannot hold back 20% of imagefolder:birds for testing"):
        open_data(f"imagefolder:{folder}")
    with pytest.raises(DataError, match="no image of a class is left"):
        open_data("digits", DataOptions(validation_share=0.999))


def test_what_is_kept_in_memory_does_not_depend_on_the_machine(write_images: Callable[..., Path]) -> None:
    folder = write_images("birds", ("a", "b"), 10)
    assert isinstance(open_data(f"imagefolder:{folder}").train, Pixels)
    assert isinstance(open_data(f"imagefolder:{folder}", DataOptions(from_disk=True)).train, Files)


def test_mean_and_deviation_are_those_of_all_pixels(write_images: Callable[..., Path]) -> None:
    found = open_data(f"imagefolder:{write_images('birds', ('a', 'b', 'c'), 5)}", DataOptions(validation_share=0))
    assert isinstance(found.train, Pixels)
    mean, deviation = mean_and_deviation(found.train)
    pixels = found.train.images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    flat = Pixels(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(4))
    assert mean_and_deviation(flat) == ((0.2,), (1.0,))


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_data("digit")
    assert caught.value.hint == "Did you mean digits?"
    with pytest.raises(UsageError) as caught:
        open_data(str(tmp_path))
    assert caught.value.hint.startswith("Write imagefolder:")
    with pytest.raises(UsageError, match=r"expected 1 \(grey\) or 3"):
        DataOptions(channels=4)
    with pytest.raises(UsageError, match="hold back"):
        DataOptions(validation_share=1)


def cifar_archive(folder: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 20) -> Path:
    """Write CIFAR-10 in torchvision's format, packed, and have torchvision expect it."""
    random = np.random.default_rng(0)
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)
    kind = torchvision.datasets.CIFAR10
    sums = {}

    def write(name: str, content: object) -> None:
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()  # noqa: S324 - as torchvision does

    for name in [n for n, _ in kind.train_list + kind.test_list]:
        pixels = random.integers(0, 256, (per_batch, 3072)).astype(np.uint8)
        write(name, {"data": pixels, "labels": [i % 10 for i in range(per_batch)]})
    write("batches.meta", {"label_names": [f"class{i}" for i in range(10)]})
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, base.name)
    monkeypatch.setattr(kind, "train_list", [[n, sums[n]] for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[n, sums[n]] for n, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())  # noqa: S324
    return archive


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serve the folder `there` on this machine; give its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "there"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_cifar_is_read_and_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str) -> None:
    archive = cifar_archive(tmp_path / "there", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{served}/{archive.name}")
    found = open_data("cifar10", DataOptions(folder=tmp_path / "there"))
    assert found.classes == tuple(f"class{i}" for i in range(10))
    assert {name: len(images) for name, images in found.splits.items()} == {"train": 90, "validation": 10, "test": 20}
    assert found.size == (32, 32)
    grey = open_data("cifar10", DataOptions(folder=tmp_path / "there", channels=1))
    assert grey.train.read(0).shape == (1, 32, 32)
    with pytest.raises(DataError, match="cannot read cifar10 in") as caught:
        open_data("cifar10", DataOptions(folder=tmp_path / "new"))
    assert "--download" in caught.value.hint
    again = open_data("cifar10", DataOptions(folder=tmp_path / "new", download=True))
    assert again.digest() == found.digest()
    archive.unlink()
    with pytest.raises(DataError, match="cannot download cifar10") as caught:
        open_data("cifar10", DataOptions(folder=tmp_path / "third", download=True))
    assert "digits" in caught.value.hint


def test_damaged_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_archive(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"damaged")
    with pytest.raises(DataError, match="not found or corrupted"):
        open_data("cifar10", DataOptions(folder=tmp_path))
