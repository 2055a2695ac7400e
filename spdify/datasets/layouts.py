"""Folders of images: which file is of which class, in which split."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from spdify.datasets.images import Files
from spdify.errors import DataError, encodable, plain_bytes, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
LAYOUT_HINT = (
    "Expected PATH/train/CLASS/*.png with PATH/val and PATH/test of the same form (either may be missing), or "
    "PATH/CLASS/*.png, which is then split."
)
FEWEST_CLASSES = 2
MAX_TEXT_BYTES = 64 * 2**20  # Tiny ImageNet's largest list, of the words of WordNet, has 2.6 MB


@dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Attributes:
        classes: Names, by label.
        splits: Files by `train`, `validation`, `test`; all of them under `all` where the folder has no splits.
    """

    classes: tuple[str, ...]
    splits: dict[str, Files]


def image_folder(root: Path, channels: int) -> Layout:
    """Read a folder with one folder per class, below folders per split or not; classes in alphabetical order.

    Raises:
        DataError: There is no such folder, or it is of another form.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"cannot read images from {root}: expected a folder, there is {found}", hint=LAYOUT_HINT)
    folders = _folders_named(root)
    names = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    named = {split: [folders[n] for n in words if n in folders] for split, words in names.items()}
    if twice := next((both for both in named.values() if len(both) > 1), None):
        raise DataError(
            f"cannot read images from {root}: {' and '.join(p.name for p in twice)} mean the same", hint=LAYOUT_HINT
        )
    places = {split: folder[0] for split, folder in named.items() if folder}
    if "train" not in places and places:
        raise DataError(
            f"cannot read images from {root}: it has {', '.join(p.name for p in places.values())} but no train folder",
            hint=LAYOUT_HINT,
        )
    places = places or {"all": root}
    classes = _classes(places.get("train", root))
    return Layout(classes, {split: _files(folder, classes, channels) for split, folder in places.items()})


def _folders_named(root: Path) -> dict[str, Path]:
    """Give the folders that hold folders, by name; without any in it, one is a class, whatever it is called."""
    try:
        return {child.name.lower(): child for child in _folders(root) if _folders(child)}
    except OSError as error:
        raise _unreadable(root, error) from error


def tiny_imagenet(root: Path, channels: int) -> Layout:
    """Read the Tiny ImageNet folder as it is distributed; its labelled `val` is the test split, `test` has no labels.

    Raises:
        DataError: It is not there, or a file that should be is missing.
    """
    folder = root if (root / "wnids.txt").is_file() else root / "tiny-imagenet-200"
    try:
        ids = sorted(plain_bytes(folder / "wnids.txt", MAX_TEXT_BYTES).decode("utf-8").split())
        lines = plain_bytes(folder / "words.txt", MAX_TEXT_BYTES).decode("utf-8").splitlines()
        words = dict(line.split("\t", 1) for line in lines if "\t" in line)
        lines = plain_bytes(folder / "val" / "val_annotations.txt", MAX_TEXT_BYTES).decode("utf-8").splitlines()
        marked = [(row[0], row[1]) for row in csv.reader(lines, delimiter="\t") if row]
    except (OSError, IndexError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read Tiny ImageNet from {root}: {error}",
            hint="Fetch tiny-imagenet-200.zip (cs231n.stanford.edu), unpack it, and give its place by --data-dir.",
        ) from error
    labels = {name: i for i, name in enumerate(ids)}
    train = _files(folder / "train", tuple(ids), channels)
    if unknown := sorted({name for _, name in marked} - labels.keys()):
        raise DataError(
            f"cannot read Tiny ImageNet from {root}: val_annotations.txt has the unknown class {unknown[0]}"
        )
    paths = tuple(folder / "val" / "images" / file for file, _ in marked)
    test = Files(paths, torch.tensor([labels[name] for _, name in marked]), channels)
    # Some classes share their first word (two kinds of crane): then all of the words.
    first = [words.get(i, i).split(",")[0].strip() for i in ids]
    names = tuple(w if first.count(w) == 1 else f"{words.get(i, i)} ({i})" for i, w in zip(ids, first, strict=True))
    return Layout(names, {"train": train, "test": test})


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(child.name for child in _folders(folder)))
    if len(classes) < FEWEST_CLASSES:
        loose = " and images beside them" if any(p.suffix.lower() in IMG_EXTENSIONS for p in folder.iterdir()) else ""
        raise DataError(
            f"cannot read images from {folder}: expected a folder for each class, found {len(classes)}{loose}",
            hint=LAYOUT_HINT,
        )
    if odd := next((name for name in classes if name != encodable(name)), None):
        raise DataError(
            f"cannot read images from {folder}: the name of the class {printable(odd)} is not UTF-8",
            hint="Rename its folder, in every split.",
        )
    return classes


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _files(folder: Path, classes: tuple[str, ...], channels: int) -> Files:
    if unknown := sorted({child.name for child in _folders(folder)} - set(classes)):
        raise DataError(
            f"cannot read images from {folder}: it has the class {unknown[0]}, which the training images do not have",
            hint=LAYOUT_HINT,
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_in(folder / name)
        if not found and folder.name.lower() not in (*VALIDATION, *TEST):
            raise DataError(
                f"cannot read images from {folder / name}: there is none", hint=f"Known: {', '.join(IMG_EXTENSIONS)}."
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"cannot read images from {folder}: there is none in its classes' folders", hint=LAYOUT_HINT)
    return Files(tuple(paths), torch.tensor(labels), channels)


def _images_in(folder: Path) -> list[Path]:
    """List the images at any depth, in order; a folder that links lead to twice is read once."""
    found: list[Path] = []
    seen: set[str] = set()
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        current = waiting.pop()
        if (real := os.path.realpath(current)) in seen:
            continue
        seen.add(real)
        for entry in _entries(current):
            if entry.name.startswith("."):
                continue
            if _leads_to(entry.is_dir):
                waiting.append(current / entry.name)
            elif entry.name.lower().endswith(IMG_EXTENSIONS) and _leads_to(entry.is_file):
                found.append(current / entry.name)
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder's entries, which know what is a folder without asking the disk again."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _leads_to(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link that leads round is of none."""
    try:
        return kind()
    except OSError:
        return False


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot read images from {folder}: {error.strerror or error}", hint=LAYOUT_HINT)
