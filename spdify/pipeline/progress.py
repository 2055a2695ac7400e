"""Who is told how a training goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import EpochResult


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Progress:
    """Who is told how a training goes; by default nobody.

    Attributes:
        step: Told, in words, what is being done.
        batch: Told epoch, number of epochs, step, number of steps, and the loss last seen.
        epoch: Told the figures of an epoch, and the number of epochs.
        note: Told, in words, what the user may not expect.
    """

    step: Callable[[str], None] = _ignore
    batch: Callable[[int, int, int, int, float], None] = _ignore
    epoch: Callable[[EpochResult, int], None] = _ignore
    note: Callable[[str], None] = _ignore
