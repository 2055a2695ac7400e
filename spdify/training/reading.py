"""Images read in batches, in worker processes where there are some."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spdify.datasets import Files, Pixels, fit_to, normalise
from spdify.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spdify.datasets import Images
    from spdify.records import Preprocessing

Part: TypeAlias = tuple[Tensor, Tensor]
"""Inputs (n, C, H, W), float32; labels (n,) int64, or shares (n, classes) float32 after mixup."""

PREFETCH = 4  # parts that each worker reads ahead


def read_batches(images: Dataset[tuple[Tensor, int]], places: Sequence[object], workers: int) -> Iterator[Part]:
    """Read batches from a data set, in worker processes where there are some.

    Args:
        images: Gives (input, label) for each entry of a batch.
        places: One list of entries per batch.
        workers: Number of processes.

    Raises:
        DataError: An image cannot be read; in a worker, too.
    """
    loader = DataLoader(
        _Guarded(images), batch_sampler=places, num_workers=workers, collate_fn=_collate,  # type: ignore[arg-type]
        prefetch_factor=PREFETCH if workers else None,
    )  # fmt: skip
    for batch in loader:
        if isinstance(batch, tuple) and isinstance(batch[0], str):
            raise DataError(batch[0], hint=batch[1])
        yield batch


class _Guarded(Dataset[object]):
    """Gives a fault as a value: what a worker raises loses its type and fields on the way."""

    def __init__(self, images: Dataset[tuple[Tensor, int]]) -> None:
        self._images = images

    def __getitem__(self, place: object) -> object:
        try:
            return self._images[place]
        except DataError as error:
            return error.message, error.hint


def _collate(items: list[tuple[object, object]]) -> object:
    for item in items:
        if isinstance(item[0], str):
            return item
    inputs, labels = zip(*items, strict=True)
    return torch.stack(inputs), torch.tensor(labels)


class _Fitted(Dataset[tuple[Tensor, int]]):
    """Images of a split as inputs for measuring."""

    def __init__(self, images: Files, how: Preprocessing) -> None:
        self._images, self._how = images, how

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return fit_to(self._images.read(index), self._how), int(self._images.labels[index])


def measured_batches(  # noqa: PLR0913 - what, how, and who takes which
    images: Images,
    how: Preprocessing,
    *,
    batch_size: int = 256,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give a split in batches, as it is measured.

    Args:
        images: In memory, or files.
        how: Size, cropping and normalisation.
        batch_size: Of this process.
        rank: Of this process: it takes every image whose index leaves this rest.
        world: Number of processes.
        device: Where batches go.
        workers: Processes that read files.

    Yields:
        Inputs (n, C, H, W), labels (n,), indices in the split (n,).
    """
    indices = torch.arange(rank, len(images), world)
    chunks = list(torch.split(indices, batch_size)) if len(indices) else []
    if isinstance(images, Pixels):
        read: Iterator[Part] = ((fit_to(images.images[chunk], how), images.labels[chunk]) for chunk in chunks)
    else:
        read = read_batches(_Fitted(images, how), [chunk.tolist() for chunk in chunks], workers)
    for chunk, (pixels, labels) in zip(chunks, read, strict=True):
        yield normalise(pixels.to(device), how), labels.to(device), chunk
