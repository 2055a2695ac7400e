"""Quantities before and after, as tables with a pair of bars in each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Quantities:
    """What one row is made of.

    Attributes:
        name: In front.
        before: The quantity before.
        after: After; None where it stays.
        link: Id of what is known of it elsewhere on the page.
        after_path: Where `after` stands in the report.
    """

    name: str
    before: float
    after: float | None
    link: str = ""
    after_path: str = ""


@dataclass(frozen=True)
class BarRow:
    """A quantity before and after, as texts and as lengths in percent of the largest."""

    name: str
    before: str
    after: str
    before_width: float
    after_width: float
    after_path: str
    link: str


@dataclass(frozen=True)
class Bars:
    """A table with a pair of bars in each row."""

    caption: str
    rows: Sequence[BarRow]


def make_bars(caption: str, rows: Sequence[Quantities], words: Callable[[float], str]) -> Bars:
    """Make a table.

    Args:
        caption: Above it.
        rows: In order.
        words: Gives a quantity as text.
    """
    most = max((value for row in rows for value in (row.before, row.after) if value is not None), default=0) or 1

    def made(row: Quantities) -> BarRow:
        there = row.before if row.after is None else row.after
        return BarRow(
            row.name, words(row.before), "as before" if row.after is None else words(row.after),
            round(100 * row.before / most, 2), round(100 * there / most, 2), row.after_path, row.link,
        )  # fmt: skip

    return Bars(caption, [made(row) for row in rows])
