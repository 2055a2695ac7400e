"""Batches: from images in memory at once, from files one by one with timm's transforms.

Every step's global batch, its order and its augmentation follow from (seed, epoch, step). Each process takes its share,
in the parts that gradients are accumulated over: so 2 processes, or 2 parts, see what one sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from spdify.datasets import Pixels, fitted, image_size, normalise
from spdify.errors import UsageError
from spdify.training.randomness import generator_at, seed_all
from spdify.training.reading import Part, read_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spdify.datasets import Images
    from spdify.records import Preprocessing, Recipe

PADDING_SHARE = 8  # an eighth of the height: 4 of 32, as for CIFAR


@dataclass(frozen=True)
class Share:
    """Which part of each global batch a process takes.

    Attributes:
        rank: Of the process, from 0.
        world: Number of processes.
        parts: Parts per process over which gradients are accumulated.
    """

    rank: int = 0
    world: int = 1
    parts: int = 1

    def slices(self, batch: int) -> list[slice]:
        """Give this process's parts of a global batch.

        Raises:
            UsageError: It cannot be divided.
        """
        pieces = self.world * self.parts
        if batch % pieces or batch // pieces < 2:  # noqa: PLR2004 - a batch norm needs two
            raise UsageError(
                f"cannot divide a batch of {batch} over {self.world} processes and {self.parts} accumulated parts",
                hint=f"Give --batch-size as a multiple of {pieces}, at least {2 * pieces}.",
            )
        size = batch // pieces
        first = self.rank * self.parts
        return [slice((first + part) * size, (first + part + 1) * size) for part in range(self.parts)]


class Batches(Protocol):
    """A training set, epoch by epoch."""

    steps: int

    def epoch(self, epoch: int) -> Iterator[list[Part]]:
        """Give, for each step of an epoch (from 1), this process's parts of the global batch."""


def make_batches(  # noqa: PLR0913 - what, how, and who takes which
    images: Images,
    recipe: Recipe,
    how: Preprocessing,
    *,
    classes: int,
    mirrored: bool = True,
    seed: int = 0,
    share: Share | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Batches:
    """Make a training set ready.

    Args:
        images: In memory, or files.
        recipe: Batch size and augmentation.
        how: Size and normalisation of the inputs.
        classes: Number of classes, for mixup.
        mirrored: Whether mirror images are of the same class.
        seed: Of order and augmentation.
        share: This process's part.
        device: Where batches go.
        workers: Processes that read and transform files.

    Raises:
        UsageError: The batch cannot be divided, or is larger than the training set.
    """
    common = Common(
        recipe=recipe, how=how, classes=classes, seed=seed, share=share or Share(), device=torch.device(device),
        hflip=recipe.hflip if recipe.hflip is not None else 0.5 * mirrored,
    )  # fmt: skip
    if recipe.batch_size > len(images):
        raise UsageError(
            f"cannot take batches of {recipe.batch_size} from {len(images)} training images",
            hint="Lower --batch-size.",
        )
    if isinstance(images, Pixels) and not recipe.aa:
        return _FromMemory(common, images)
    return _OneByOne(common, images, workers)


@dataclass(frozen=True)
class Common:
    """What both kinds of batches need."""

    recipe: Recipe
    how: Preprocessing
    classes: int
    seed: int
    share: Share
    device: torch.device
    hflip: float

    def slices(self) -> list[slice]:
        """Give this process's parts of a global batch.

        Raises:
            UsageError: It cannot be divided so.
        """
        found = self.share.slices(self.recipe.batch_size)
        if (self.recipe.mixup or self.recipe.cutmix) and (found[0].stop - found[0].start) % 2:
            raise UsageError("cannot mix parts of odd size", hint="Give a --batch-size that divides into even parts.")
        return found

    def order(self, count: int, epoch: int) -> list[Tensor]:
        """Give the indices of each global batch of an epoch; a rest that fills no batch is left out."""
        shuffled = torch.randperm(count, generator=generator_at(self.seed, epoch))
        whole = shuffled[: count - count % self.recipe.batch_size]
        return list(torch.split(whole, self.recipe.batch_size))

    def mixed(self, inputs: Tensor, labels: Tensor, *place: int) -> Part:
        """Apply mixup or CutMix to one part, where the recipe asks for it."""
        recipe = self.recipe
        if not (recipe.mixup or recipe.cutmix):
            return inputs, labels
        seed_all(*place)
        mix: Callable[..., Part] = Mixup(  # type: ignore[no-untyped-call]
            recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=self.classes
        )
        return mix(inputs, labels)


class _FromMemory:
    """Images in memory: crops, mirror images and erasing for a whole batch at once."""

    def __init__(self, common: Common, pixels: Pixels) -> None:
        pixels = fitted(pixels, common.how)
        self._common = common
        self._slices = common.slices()
        self._images, self._labels = pixels.images.to(common.device), pixels.labels.to(common.device)
        padding = common.recipe.crop_padding
        self._padding = common.how.input_size[1] // PADDING_SHARE if padding is None else padding
        self.steps = len(pixels) // common.recipe.batch_size

    def epoch(self, epoch: int) -> Iterator[list[Part]]:
        """Give this process's parts of each step."""
        common = self._common
        for step, indices in enumerate(common.order(len(self._labels), epoch)):
            crops, flips = self._draw(len(indices), generator_at(common.seed, epoch, step))
            yield [
                self._part(indices[s], crops[s], flips[s], (common.seed, epoch, step, s.start)) for s in self._slices
            ]

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        crops = torch.randint(0, 2 * self._padding + 1, (count, 2), generator=generator)
        flips = torch.rand(count, generator=generator) < self._common.hflip
        return crops, flips

    def _part(self, indices: Tensor, crops: Tensor, flips: Tensor, place: tuple[int, ...]) -> Part:
        common = self._common
        indices, crops, flips = (t.to(common.device) for t in (indices, crops, flips))
        images = crop_and_flip(self._images[indices], crops, flips, self._padding)
        inputs = normalise(images, common.how)
        if common.recipe.reprob:
            seed_all(*place, 1)
            erase: Callable[[Tensor], Tensor] = RandomErasing(  # type: ignore[no-untyped-call]
                common.recipe.reprob, mode="pixel", device=str(common.device)
            )
            inputs = erase(inputs)
        return common.mixed(inputs, self._labels[indices], *place)


def crop_and_flip(images: Tensor, crops: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Cut each image anew from itself with a black border, and mirror some.

    Args:
        images: (N, C, H, W), uint8.
        crops: (N, 2): row and column of each cut, 0 to 2 · padding.
        flips: (N,), bool.
        padding: Width of the border.

    Returns:
        (N, C, H, W), uint8.
    """
    count, _, height, width = images.shape
    padded = pad(images, [padding] * 4) if padding else images
    rows = crops[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = crops[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)
    every = torch.arange(count, device=images.device)[:, None, None]
    x_NHWC = padded.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]]
    return x_NHWC.permute(0, 3, 1, 2)


class _OneByOne:
    """Images transformed one by one as timm does it, in worker processes; each from a seed of its own."""

    def __init__(self, common: Common, images: Images, workers: int) -> None:
        self._common = common
        self._slices = common.slices()
        self._workers = workers
        self._set = _Transformed(images, common)
        self.steps = len(images) // common.recipe.batch_size

    def epoch(self, epoch: int) -> Iterator[list[Part]]:
        """Give this process's parts of each step."""
        common = self._common
        places = [
            [(int(i), epoch) for i in indices[s]]
            for indices in common.order(len(self._set), epoch)
            for s in self._slices
        ]
        parts: list[Part] = []
        for number, (inputs, labels) in enumerate(read_batches(self._set, places, self._workers)):
            step, part = divmod(number, len(self._slices))
            place = (common.seed, epoch, step, self._slices[part].start)
            parts.append(common.mixed(inputs.to(common.device), labels.to(common.device), *place))
            if part == len(self._slices) - 1:
                yield parts
                parts = []


class _Transformed(Dataset[tuple[Tensor, int]]):
    """Training images with timm's transform; asked for by (index, epoch)."""

    def __init__(self, images: Images, common: Common) -> None:
        recipe, how = common.recipe, common.how
        self._images, self._seed, size = images, common.seed, image_size(how)
        try:
            self._transform = self._made(recipe, how, common, size)
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"cannot augment by aa={recipe.aa!r}: {str(error) or type(error).__name__}",
                hint="Take one of timm's policies, for example rand-m9-mstd0.5-inc1, augmix-m5-w4, original.",
            ) from error

    @staticmethod
    def _made(recipe: Recipe, how: Preprocessing, common: Common, size: tuple[int, int]) -> Callable[[object], Tensor]:
        made: Callable[[object], Tensor] = create_transform(
            size, is_training=True, hflip=common.hflip, color_jitter=0.0, auto_augment=recipe.aa or None,
            interpolation=how.interpolation, mean=how.mean, std=how.std, re_prob=recipe.reprob, re_mode="pixel",
        )  # fmt: skip
        return made

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, int]:
        index, epoch = place
        seed_all(self._seed, epoch, index, 2)
        inputs: Tensor = self._transform(to_pil_image(self._images.read(index)))
        return inputs, int(self._images.labels[index])
