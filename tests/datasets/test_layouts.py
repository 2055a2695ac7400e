from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from spdify.datasets.layouts import image_folder, tiny_imagenet
from spdify.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_splits_by_folder(write_images: Callable[..., Path], tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        write_images(f"data/{split}", ("b", "a"), count)
    layout = image_folder(tmp_path / "data", 3)
    assert layout.classes == ("a", "b")
    assert {name: len(files) for name, files in layout.splits.items()} == {"train": 6, "validation": 4, "test": 2}
    train = layout.splits["train"]
    assert [path.parent.name for path in train.paths] == ["a"] * 3 + ["b"] * 3
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_one_folder_per_class_and_no_split(write_images: Callable[..., Path]) -> None:
    layout = image_folder(write_images("data", ("cat", "dog"), 2), 3)
    assert layout.classes == ("cat", "dog")
    assert list(layout.splits) == ["all"]


def test_a_class_may_be_called_like_a_split(write_images: Callable[..., Path]) -> None:
    layout = image_folder(write_images("data", ("bus", "test", "train"), 2), 3)
    assert layout.classes == ("bus", "test", "train")
    assert list(layout.splits) == ["all"]


def test_one_split_under_two_names(write_images: Callable[..., Path], tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        write_images(f"data/{split}", ("a", "b"), 1)
    with pytest.raises(DataError, match="val and validation mean the same"):
        image_folder(tmp_path / "data", 3)


def test_other_files_and_deeper_folders(write_images: Callable[..., Path]) -> None:
    folder = write_images("data", ("a", "b"), 1)
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.png").write_bytes(b"")
    write_images("data/a/deeper", ("still",), 2)
    assert len(image_folder(folder, 3).splits["all"]) == 4


def test_links_that_go_round_end(write_images: Callable[..., Path]) -> None:
    folder = write_images("data", ("a", "b"), 1)
    (folder / "a" / "again").symlink_to(folder / "a")
    (folder / "a" / "up").symlink_to(folder)
    found = image_folder(folder, 3).splits["all"]
    # Class a: its own image once, and what the link leads to: the root's other folder, b (a itself was read).
    shown = [path.relative_to(folder).as_posix() for path in found.paths]
    assert shown == ["a/0.png", "a/up/b/0.png", "b/0.png"]


def test_a_linked_class_is_read(write_images: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_images("data", ("a", "b"), 1)
    write_images("elsewhere", ("c",), 2)
    (folder / "c").symlink_to(tmp_path / "elsewhere" / "c")
    assert image_folder(folder, 3).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ((), "there is nothing"),
        ((("data/only", 1),), "a folder for each class, found 1"),
        ((("data/val/a", 1), ("data/val/b", 1)), "has val but no train folder"),
        ((("data/train/a", 1), ("data/train/b", 0)), "there is none"),
        ((("data/train/a", 1), ("data/train/b", 1), ("data/test/a", 1), ("data/test/c", 1)), "has the class c"),
    ],
)
def test_wrong_layouts(
    write_images: Callable[..., Path], tmp_path: Path, make: tuple[tuple[str, int], ...], words: str
) -> None:
    for place, count in make:
        parent, _, name = place.rpartition("/")
        write_images(parent, (name,), count)
    with pytest.raises(DataError, match=words) as caught:
        image_folder(tmp_path / "data", 3)
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes there")
def test_a_class_whose_name_is_not_utf8_is_told(write_images: Callable[..., Path]) -> None:
    root = write_images("data", ("a", "b"), 1)
    (root / "b").rename(root / os.fsdecode(b"b\xff"))
    with pytest.raises(DataError, match="the name of the class b\ufffd is not UTF-8"):
        image_folder(root, 3)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="there is a file"):
        image_folder(tmp_path / "data", 3)


def test_loose_images_are_mentioned(write_images: Callable[..., Path], tmp_path: Path) -> None:
    write_images("", ("data",), 2)
    with pytest.raises(DataError, match="images beside them"):
        image_folder(tmp_path / "data", 3)


def test_tiny_imagenet(write_images: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02", "n03"):
        write_images(f"tiny-imagenet-200/train/{name}", ("images",), 2)
    write_images("tiny-imagenet-200/val", ("images",), 3)
    (root / "wnids.txt").write_text("n02\nn01\nn03\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius\nn02\tcrane\nn03\tcrane, lifting\nn04\tnot used\n")
    marks = "".join(f"{i}.png\tn0{3 - i}\t0\t0\t1\t1\n" for i in range(3))
    (root / "val" / "val_annotations.txt").write_text(marks)
    for place in (root, tmp_path):
        layout = tiny_imagenet(place, 3)
        assert layout.classes == ("goldfish", "crane (n02)", "crane, lifting (n03)")
        assert len(layout.splits["train"]) == 6
        assert layout.splits["test"].labels.tolist() == [2, 1, 0]
    (root / "val" / "val_annotations.txt").write_text("0.png\tn99\n")
    with pytest.raises(DataError, match="unknown class n99"):
        tiny_imagenet(tmp_path, 3)


def test_tiny_imagenet_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read Tiny ImageNet") as caught:
        tiny_imagenet(tmp_path, 3)
    assert "tiny-imagenet-200.zip" in caught.value.hint


@pytest.mark.parametrize("name", ["words.txt", "val/val_annotations.txt"])
def test_lists_of_tiny_imagenet_that_never_end(tmp_path: Path, name: str) -> None:
    (tmp_path / "val").mkdir()
    for text in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        (tmp_path / text).write_text("n01\tx\n")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="not a plain file"):
        tiny_imagenet(tmp_path, 3)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a plain file"):
        tiny_imagenet(tmp_path, 3)
    (tmp_path / name).unlink()
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 2**26 + 1)
    with pytest.raises(DataError, match="at most 67108864 bytes, got more"):
        tiny_imagenet(tmp_path, 3)


def test_links_that_lead_round_are_no_images(write_images: Callable[..., Path]) -> None:
    root = write_images("data", ("a", "b"), 2)
    (root / "a" / "x.png").symlink_to("x.png")
    (root / "a" / "up").symlink_to(".")
    assert len(image_folder(root, 3).splits["all"]) == 4


def test_a_folder_that_cannot_be_listed_is_told(
    write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "no access")

    root = write_images("data", ("a", "b"), 2)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read images from .*: no access"):
        image_folder(root, 3)
