"""From what names a data set to its images, classes and splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchvision

from spdify.datasets.images import Files, Images, Pixels, in_memory, readable
from spdify.datasets.layouts import Layout, image_folder, tiny_imagenet
from spdify.datasets.paths import home_path, real_name
from spdify.datasets.splitting import hold_back
from spdify.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "imagefolder"
NAMES = ("cifar10", "cifar100", "tiny-imagenet", "digits", f"{FOLDER}:PATH")
TEST_SHARE = 0.2  # of a data set without splits of its own
DIGITS_LEVELS = 16
DIGITS_SIZE = 32  # from 8: a network for images halves its maps up to five times
STATISTICS_FROM = 2000  # images of a set that is not in memory from which mean and deviation are taken


@dataclass(frozen=True)
class DataOptions:
    """How to open a data set.

    Attributes:
        folder: Where cifar10, cifar100 and tiny-imagenet lie.
        download: Fetch cifar10 or cifar100 if it is not there.
        channels: 1 or 3, as the network takes them.
        validation_share: Share of the training images that is held back for validation where the data set has no
            validation split; 0 for none.
        skip_corrupt: Leave images out that cannot be decoded, and count them.
        from_disk: Do not keep the images of a folder in memory, even where they are of one size and fit.
    """

    folder: Path = Path("data")
    download: bool = False
    channels: int = 3
    validation_share: float = 0.1
    skip_corrupt: bool = False
    from_disk: bool = False

    def __post_init__(self) -> None:
        """Refuse what can only fail later.

        Raises:
            UsageError: A number is out of range.
        """
        if self.channels not in {1, 3}:
            raise UsageError(
                f"cannot give images {self.channels} channels: expected 1 (grey) or 3 (RGB)",
                hint="Build the network for 1 or 3: --in-chans, or --input-size C,H,W.",
            )
        if not 0 <= self.validation_share < 1:
            raise UsageError(f"cannot hold back a share of {self.validation_share}: expected 0 up to below 1")


@dataclass(frozen=True)
class DataSet:
    """A data set, split.

    Attributes:
        name: As it was asked for; of a folder, its own name only.
        classes: Names of the classes, by label.
        train: Images to train on.
        validation: Images to choose by; None where none are held back.
        test: Images to report on; None where the data set has none.
        spec: As it was asked for, whole.
        mirrored: Whether an image and its mirror image are of the same class.
        enlarged: Height and width that the images are best enlarged to; None for as they are.
        skipped: Files that could not be read.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    validation: Images | None
    test: Images | None
    spec: str = ""
    mirrored: bool = True
    enlarged: tuple[int, int] | None = None
    skipped: tuple[Path, ...] = ()

    @property
    def splits(self) -> dict[str, Images]:
        """Give the splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in named.items() if images is not None}

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width for a network's inputs; None where the images differ in size or are not in memory."""
        if self.enlarged is not None:
            return self.enlarged
        if not isinstance(self.train, Pixels):
            return None
        height, width = self.train.images.shape[-2:]
        return height, width

    def digest(self) -> str:
        """Hash all splits: the same for the same images in the same order."""
        return "-".join(images.digest()[:16] for images in self.splits.values())


def open_data(spec: str, options: DataOptions | None = None) -> DataSet:
    """Open a data set.

    Args:
        spec: `cifar10`, `cifar100`, `tiny-imagenet`, `digits` or `imagefolder:PATH`.
        options: Where it lies, and how to read it.

    Raises:
        UsageError: There is no data set of that name.
        DataError: It is not there, or cannot be read.
    """
    options = options or DataOptions()
    return replace(_open(spec, options), spec=spec)


def _open(spec: str, options: DataOptions) -> DataSet:
    kind, _, path = spec.partition(":")
    if kind == FOLDER and path:
        root = home_path(path)
        return _from_layout(f"{FOLDER}:{real_name(root)}", image_folder(root, options.channels), options)
    readers: dict[str, Callable[[str, DataOptions], DataSet]] = {
        "cifar10": _cifar, "cifar100": _cifar, "tiny-imagenet": _tiny_imagenet, "digits": _digits,
    }  # fmt: skip
    if spec not in readers:
        near = get_close_matches(spec, readers, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(NAMES)}."
        if Path(spec).is_dir():
            hint = f"Write {FOLDER}:{spec} for the folder."
        raise UsageError(f"cannot find the data set {spec!r}", hint=hint)
    return readers[spec](spec, options)


def mean_and_deviation(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and standard deviation of all pixels, per channel, of images from 0 to 1.

    Of images that are not in memory, from 2,000 of them, evenly spaced.
    """
    if isinstance(images, Pixels):
        counts = _levels(images.images.transpose(0, 1))
    else:
        step = max(1, len(images) // STATISTICS_FROM)
        counts = sum((_levels(images.read(index)) for index in range(0, len(images), step)), torch.zeros(1, 1))
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for count in counts:
        share = count.double() / count.sum()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 4))
        # A channel that never changes has no deviation to divide by.
        deviations.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 4) or 1.0)
    return tuple(means), tuple(deviations)


def _levels(channels: torch.Tensor) -> torch.Tensor:
    """Count the levels of each channel: (C, …) uint8 to (C, 256)."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in channels])


def _from_layout(name: str, layout: Layout, options: DataOptions) -> DataSet:
    """Read what a folder holds into memory where it fits, and split it where it is not."""
    splits: dict[str, Images] = {}
    skipped: list[Path] = []
    for split, listed in layout.splits.items():
        kept = listed
        if options.skip_corrupt:
            kept, bad = readable(listed)
            skipped += bad
            if not len(kept):
                raise DataError(f"cannot read the {split} images of {name}: none of {len(listed)} can be decoded")
        splits[split] = kept if options.from_disk else in_memory(kept) or kept
    if len({type(images) for images in splits.values()}) > 1:
        # One way of reading for all: the files' sizes differ somewhere.
        splits = {split: _as_files(images, options.channels) for split, images in splits.items()}
    return _split(name, layout.classes, splits, options, skipped=tuple(skipped))


def _as_files(images: Images, channels: int) -> Files:
    if isinstance(images, Files):
        return images
    return Files(tuple(map(Path, images.names)), images.labels, channels)


def _split(
    name: str,
    classes: tuple[str, ...],
    splits: dict[str, Images],
    options: DataOptions,
    *,
    skipped: tuple[Path, ...] = (),
) -> DataSet:
    """Hold test and validation images back where the data set has none of its own."""
    train, test = splits.get("train"), splits.get("test")
    if train is None:
        everything = splits["all"]
        rest, held = hold_back(everything.labels, TEST_SHARE)
        if not len(held):
            raise DataError(
                f"cannot hold back {TEST_SHARE:.0%} of {name} for testing: its classes have too few images",
                hint="Give the data set a test folder, or more images.",
            )
        train, test = everything.subset(rest), everything.subset(held)
    validation = splits.get("validation")
    if validation is None and options.validation_share:
        rest, held = hold_back(train.labels, options.validation_share)
        if not len(held):
            raise DataError(
                f"cannot hold back {options.validation_share:.0%} of {name} for validation: its classes have too few "
                f"images ({len(train)} in {len(classes)} classes)",
                hint="Hold back more (--validation-share 0.3), or nothing (0), or add a val folder.",
            )
        if len(train.labels[rest].unique()) < len(train.labels.unique()):  # type: ignore[no-untyped-call]
            raise DataError(
                f"cannot hold back {options.validation_share:.1%} of {name}: no image of a class is left to train on",
                hint="Lower --validation-share.",
            )
        train, validation = train.subset(rest), train.subset(held)
    return DataSet(name, classes, train, validation, test, skipped=skipped)


def _tiny_imagenet(name: str, options: DataOptions) -> DataSet:
    return _from_layout(name, tiny_imagenet(options.folder, options.channels), options)


def _digits(name: str, options: DataOptions) -> DataSet:
    with files("spdify.datasets").joinpath("digits.npz").open("rb") as stream, np.load(stream) as archive:
        levels, labels = torch.from_numpy(archive["images"]), torch.from_numpy(archive["labels"])
    images = (levels.float() * (255 / DIGITS_LEVELS)).round().to(torch.uint8)
    repeated = images[:, None].expand(-1, options.channels, -1, -1).contiguous()
    everything = Pixels(repeated, labels.long())
    split = _split(name, tuple(map(str, range(10))), {"all": everything}, options)
    return replace(split, mirrored=False, enlarged=(DIGITS_SIZE, DIGITS_SIZE))


def _cifar(name: str, options: DataOptions) -> DataSet:
    kind = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    splits: dict[str, Images] = {}
    classes: tuple[str, ...] = ()
    for split in ("train", "test"):
        try:
            read = kind(str(options.folder), train=split == "train", download=options.download)
        except Exception as error:
            # torchvision tells a missing or damaged file, a refused connection and a bad archive by many types.
            raise _cifar_error(name, kind.url, options, error) from error
        images = torch.from_numpy(read.data).permute(0, 3, 1, 2)
        if options.channels == 1:
            images = torchvision.transforms.v2.functional.rgb_to_grayscale(images)
        splits[split] = Pixels(images.contiguous(), torch.tensor(read.targets))
        classes = tuple(read.classes)
    return _split(name, classes, splits, options)


def _cifar_error(name: str, url: str, options: DataOptions, error: Exception) -> DataError:
    words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if options.download:
        return DataError(
            f"cannot download {name} to {options.folder}: {words}",
            hint=f"Fetch {url} on a machine with a network and unpack it in {options.folder}, or train on "
            "--data digits, which comes with spdify.",
        )
    return DataError(
        f"cannot read {name} in {options.folder}: {words.split(' You can use')[0]}",
        hint=f"Pass --download, or --data-dir DIR with torchvision's folder in it ({url}, unpacked); --data digits "
        "needs no download.",
    )
