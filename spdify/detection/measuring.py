"""Images through a detector, and what it found in each, with the time that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, Dataset

from spdify.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from spdify.datasets import LabelledImage
    from spdify.detection.detectors import Detector
    from spdify.detection.found import Found


@dataclass(frozen=True)
class Findings:
    """What a detector found.

    Attributes:
        found: In each image, in their order.
        images_per_second: Without reading; the first batch warms up. None where it is the only one.
        not_numbers: Boxes that were left out since a coordinate or the score is infinite or no number.
    """

    found: tuple[Found, ...]
    images_per_second: float | None
    not_numbers: int


def find_all(detector: Detector, images: Sequence[LabelledImage], *, batch_size: int, workers: int = 0) -> Findings:
    """Put images through a detector.

    Args:
        detector: What finds.
        images: What is looked at.
        batch_size: Images at a time.
        workers: Processes that read files.

    Raises:
        DataError: An image cannot be read.
    """
    found: list[Found] = []
    timed, seconds = 0, 0.0
    for number, batch in enumerate(_batches(images, batch_size, workers)):
        began = time.perf_counter()
        found += detector.detect(batch)  # on the CPU: there is nothing to wait for afterwards
        if number:
            timed, seconds = timed + len(batch), seconds + time.perf_counter() - began
    good = tuple(one.finite() for one in found)
    return Findings(good, timed / seconds if timed else None, sum(map(len, found)) - sum(map(len, good)))


class _Guarded(Dataset[object]):
    """Gives a fault as a value: what a worker raises loses its type and fields on the way."""

    def __init__(self, images: Sequence[LabelledImage]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> object:
        try:
            return self._images[index].read()
        except DataError as error:
            return error.message, error.hint


def _batches(images: Sequence[LabelledImage], batch_size: int, workers: int) -> Iterator[list[Tensor]]:
    for batch in DataLoader(_Guarded(images), batch_size=batch_size, num_workers=workers, collate_fn=list):
        for image in batch:
            if isinstance(image, tuple):
                raise DataError(image[0], hint=image[1])
        yield batch
