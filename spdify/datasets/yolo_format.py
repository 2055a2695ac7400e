"""Boxes in YOLO's format: a data yaml, folders of images, one text file of labels beside each image."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from torchvision.datasets.folder import IMG_EXTENSIONS

from spdify.datasets.boxes import DetectionSet, LabelledImage, LabelledObject, all_finite, is_file, require_file
from spdify.datasets.images import upright_size
from spdify.datasets.paths import home_path, real_name
from spdify.errors import DataError, UsageError, plain_bytes, require_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

YAML_SUFFIXES = (".yaml", ".yml")
KEYS = {"validation": "val", "test": "test", "train": "train"}  # in the order of preference
MAX_YAML_BYTES = 2**19
MAX_CLASSES = 2**16
TAG = "tag:yaml.org,2002:"  # of what YAML itself knows
NUMBERS = 5  # of a line: class, centre x, centre y, width, height
YAML_HINT = "Expected a yaml with `path`, `val` (or `test`, `train`) and `names`, as YOLO's data sets have it."


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads text, plain numbers, true, false, null, lists and mappings; nothing that grows beyond the file.

    An alias is the same object again, and costs nothing; a merge key copies. Long numbers, hexadecimal and sexagesimal
    ones and dates stay text. A tag may stand before any text, so what reads it must take any.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}
    yaml_constructors: ClassVar[dict[str | None, Callable[..., Any]]] = {
        **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (f"{TAG}str", f"{TAG}seq", f"{TAG}map", None)},
        f"{TAG}null": lambda *_: None,
        f"{TAG}bool": lambda self, node: self.construct_scalar(node).lower() in {"yes", "true", "on"},
        f"{TAG}int": lambda self, node: int(self.construct_scalar(node)),
        f"{TAG}float": lambda self, node: float(self.construct_scalar(node)),
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merge keys; this is where PyYAML puts in what they name."""
        for key, _ in node.value:
            if key.tag == f"{TAG}merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read", key.start_mark)


for _tag, _form in {
    "merge": r"<<",
    "null": r"~|null|Null|NULL|",
    "bool": r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    "int": r"[-+]?(0|[1-9][0-9]{0,17})",
    "float": r"[-+]?[0-9]{1,18}\.[0-9]{0,18}",
}.items():
    _Loader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(rf"(?:{_form})\Z"), None)


@dataclass(frozen=True)
class DataYaml:
    """What a data yaml says.

    Attributes:
        file: The yaml.
        root: What its paths are relative to.
        classes: Names, by index; their numbers where it has none.
        splits: Folders and lists of images, by our names of the splits.
        downloads: Whether it says how to fetch the images; that is never done.
    """

    file: Path
    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    downloads: bool


def find_yamls(folder: Path) -> tuple[Path, ...]:
    """Give the yaml files of a folder."""
    return tuple(sorted(file for file in folder.iterdir() if file.suffix.lower() in YAML_SUFFIXES))


def open_yolo(path: Path, split: str | None, *, skip_corrupt: bool) -> DetectionSet:
    """Read a split in YOLO's format; an image without a label file has no objects.

    Args:
        path: The data yaml, or the folder that holds one.
        split: `validation`, `test` or `train`; by default the first of these that there is.
        skip_corrupt: Whether to leave out images whose header cannot be read.

    Raises:
        DataError: The yaml, an image or a label cannot be read.
        UsageError: There is no such split.
    """
    said = read_yaml(_only_yaml(path) if path.is_dir() else path)
    if split is not None and split not in said.splits:
        raise UsageError(
            f"cannot measure on the {split} images of {said.file}: there are none",
            hint=f"Expected one of {', '.join(said.splits)}.",
        )
    name = split or next(iter(said.splits))
    files = [file for entry in said.splits[name] for file in _listed(said, name, entry)]
    images, skipped = [], []
    for file in files:
        try:
            images.append(_labelled(file, said))
        except _UnreadableImageError as error:
            if not skip_corrupt:
                raise error.fault from error
            skipped.append(file)
    return DetectionSet(real_name(path), name, said.classes, tuple(images), skipped=tuple(skipped))


def _only_yaml(folder: Path) -> Path:
    found = find_yamls(folder)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"cannot tell which is the data yaml of {folder}: it has {names}",
            hint="Name the file itself. " + YAML_HINT,
        )
    return found[0]


def read_yaml(file: Path) -> DataYaml:
    """Read a data yaml; nothing in it is executed, `download` in particular.

    Raises:
        DataError: It cannot be read, or lacks what it needs.
    """
    try:
        text = plain_bytes(file, MAX_YAML_BYTES).decode("utf-8")
        said = yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        words = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise DataError(f"cannot read the data yaml {file}: {words}", hint=YAML_HINT) from error
    if not isinstance(said, dict):
        raise DataError(f"cannot read the data yaml {file}: it is no mapping", hint=YAML_HINT)
    splits = {split: _entries(file, key, said.get(key)) for split, key in KEYS.items() if said.get(key)}
    if not splits:
        raise DataError(f"cannot read the data yaml {file}: it names no images", hint=YAML_HINT)
    path = said.get("path") or "."
    if not isinstance(path, (str, int, float)):
        raise DataError(f"cannot read the data yaml {file}: path is no path", hint=YAML_HINT)
    # YOLO itself has other ideas of where a relative path begins; the file's own folder is the one that moves with it.
    root = file.parent / home_path(str(path))
    return DataYaml(file, root, _classes(file, said), splits, downloads="download" in said)


def _entries(file: Path, key: str, value: object) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"cannot read the data yaml {file}: {key} is no path and no list of paths", hint=YAML_HINT)
    return tuple(entries)


def _classes(file: Path, said: dict[Any, Any]) -> tuple[str, ...]:
    names, count = said.get("names"), said.get("nc")
    if not isinstance(count, (int, float, type(None))):
        raise DataError(f"cannot read the data yaml {file}: nc is no number", hint=YAML_HINT)
    if isinstance(names, dict):
        keys = [str(index) for index in range(len(names))]  # `0: cat` and `"0": cat` are the same
        named = {str(key): name for key, name in names.items()}
        if sorted(named) != sorted(keys):
            raise DataError(
                f"cannot read the data yaml {file}: the keys of names are not 0 to {len(names) - 1}", hint=YAML_HINT
            )
        names = [named[key] for key in keys]
    if names is None and isinstance(count, int) and 0 < count <= MAX_CLASSES:
        names = range(count)
    if not isinstance(names, (list, range)) or not names:
        raise DataError(f"cannot read the data yaml {file}: it has no names of classes", hint=YAML_HINT)
    if not all(isinstance(name, (str, int, float)) for name in names):
        raise DataError(f"cannot read the data yaml {file}: a name of a class is no text", hint=YAML_HINT)
    if count is not None and count != len(names):
        raise DataError(f"cannot read the data yaml {file}: nc is {count}, but there are {len(names)} names")
    return tuple(map(str, names))


def _listed(said: DataYaml, split: str, entry: str) -> list[Path]:
    """Give the images of a folder and the folders in it, or of a text file with one path per line."""
    place = said.root / home_path(entry)
    if _is_folder(place):
        files = sorted(f for f in place.rglob("*") if f.suffix.lower() in IMG_EXTENSIONS and is_file(f))
    elif is_file(place) and place.suffix.lower() == ".txt":
        lines = _text(place).splitlines()
        # `./images/a.jpg` is beside the list; any other relative path begins where those of the yaml do.
        files = [(place.parent if s.startswith("./") else said.root) / s for line in lines if (s := line.strip())]
        for file in files:
            require_file(file)
    else:
        hint = "Its `download` is never run: fetch the images yourself." if said.downloads else YAML_HINT
        raise DataError(
            f"cannot read the {split} images of {said.file}: expected a folder or a .txt list at {place}, there is "
            f"{'another file' if is_file(place) else 'nothing'}",
            hint=hint,
        )
    if not files:
        raise DataError(f"cannot read the {split} images of {said.file}: there are none in {place}")
    return files


def _is_folder(place: Path) -> bool:
    try:
        return place.is_dir()
    except OSError:  # for example: the name is too long
        return False


def label_file(image: Path) -> Path:
    """Give the place of an image's labels: the last folder `images` becomes `labels`, the suffix `.txt`."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


class _UnreadableImageError(Exception):
    """An image, not its labels, is at fault: only such images may be left out."""

    def __init__(self, fault: DataError) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _labelled(image: Path, said: DataYaml) -> LabelledImage:
    try:
        width, height = upright_size(image)
    except DataError as error:
        raise _UnreadableImageError(error) from error
    labels = label_file(image)
    lines = _text(labels).splitlines() if os.path.lexists(labels) else []
    objects = tuple(
        _object(labels, number, line, len(said.classes), (width, height))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    return LabelledImage(image, width, height, objects)


def _text(file: Path) -> str:
    try:
        require_plain(file)
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def _object(file: Path, number: int, line: str, classes: int, size: tuple[int, int]) -> LabelledObject:
    """Read `class cx cy w h`, of which the last four are shares of the image's width and height."""
    try:
        label, *shares = map(float, line.split())
    except ValueError:
        raise _bad_line(file, number, f"{line.strip()!r} is not all numbers") from None
    if len(shares) != NUMBERS - 1:
        raise _bad_line(file, number, f"expected {NUMBERS} numbers, found {len(shares) + 1}")
    if not all_finite(label, *shares) or not all(0 <= share <= 1 for share in shares):
        raise _bad_line(file, number, f"{line.strip()!r} has coordinates outside 0 to 1")
    if not label.is_integer() or not 0 <= label < classes:
        raise _bad_line(file, number, f"the class is {label:g}, the data yaml has 0 to {classes - 1}")
    x, y, w, h = (share * size[axis % 2] for axis, share in enumerate(shares))
    return LabelledObject(int(label), (x - w / 2, y - h / 2, w, h), w * h)


def _bad_line(file: Path, number: int, words: str) -> DataError:
    hint = "Expected `class cx cy w h`, the centre and size of a box as shares of the image's width and height."
    return DataError(f"cannot read the label in {file}, line {number}: {words}", hint=hint)
