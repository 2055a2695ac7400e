"""Charts as SVG, written by hand: plain text that renders in a README, with a title for those who hear it."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from spdify.reporting.figures import bench_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spdify.records import BenchRecord

INK, QUIET, LINE, GROUND = "#1f2933", "#52606d", "#d9dee4", "#ffffff"
COLOURS = {
    "exact": "#2f7d5b", "partial": "#8fc1a9", "approximate": "#6c8ebf", "nothing": "#c3cad2", "failed": "#c0392b",
    "applied": "#2f7d5b", "kept": "#c3cad2", "refused": "#d98c3f",
}  # fmt: skip
#: Colours by name, on a light and on a dark page; `PAINTED` says which name a picture's own colour goes by there.
THEME = {
    "ink": (INK, "#e8ecf0"), "quiet": (QUIET, "#a7b3be"), "line": (LINE, "#3a4652"), "ground": (GROUND, "#11161b"),
    "panel": ("#f4f6f8", "#1a2129"), "link": ("#1a5fb4", "#8ab8ff"), "good": ("#1f6b4a", "#6fcf9f"),
    "warn": ("#8a4b08", "#f0b366"), "bad": ("#a3261b", "#ff8f85"), "pale": ("#8fc1a9", "#3f7d61"),
    "other": ("#c0572b", "#f39a72"), "blue": ("#6c8ebf", "#8fb0df"), "grey": ("#c3cad2", "#566370"),
}  # fmt: skip
PAINTED = {
    INK: "ink", QUIET: "quiet", LINE: "line", GROUND: "ground", "#2f7d5b": "good", "#8fc1a9": "pale", "#6c8ebf": "blue",
    "#c3cad2": "grey", "#c0392b": "bad", "#d98c3f": "warn", "#c0572b": "other",
}  # fmt: skip
ROW, CHARACTER = 18, 6.4  # height of a row and width of a character, in pixels at 11 px
STEPS = 5  # of an axis of changes
ALIKE = 1e-6  # share of a number by which others differ at least, to be drawn apart
SMALLEST = 1e-8  # range that is drawn
MARK = 1.5  # width of one, in pixels
SERIES = {"converted": "#2f7d5b", "original": "#c0572b"}  # told apart by their dashes, too
DASHES = {"converted": "", "original": "5 3"}
FONT = "font-family='system-ui, Segoe UI, Helvetica, Arial, sans-serif' font-size='11'"


def text(  # noqa: PLR0913 - where, what and how
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = INK, more: str = ""
) -> str:
    """Write words at a place."""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}' {more}>{escape(words)}</text>"


def _rectangle(  # noqa: PLR0913 - where, how large and what
    x: float, y: float, width: float, height: float, colour: str, label: str = ""
) -> str:
    hover = f"<title>{escape(label)}</title>" if label else ""
    box = f"x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height:.1f}'"
    return f"<rect {box} fill='{colour}'>{hover}</rect>"


def picture(width: float, height: float, title: str, description: str, shapes: Sequence[str]) -> str:
    """Put shapes on a light ground, with a title that is seen and one that is read out."""
    name = f"p{zlib.crc32(f'{title} {description}'.encode()):08x}"  # a page may hold several pictures
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' role='img' aria-labelledby='{name}t {name}d' {FONT}>"
    )
    return "\n".join(
        [
            head,
            f"<title id='{name}t'>{escape(title)}</title>",
            f"<desc id='{name}d'>{escape(description)}</desc>",
            _rectangle(0, 0, width, height, GROUND),
            text(12, 22, title, more="font-weight='600' font-size='14'"),
            *shapes,
            "</svg>\n",
        ]
    )


def _legend(names: Mapping[str, str], x: float, y: float) -> list[str]:
    shapes = []
    for key, words in names.items():
        shapes += [_rectangle(x, y - 9, 10, 10, COLOURS[key]), text(x + 15, y, words, colour=QUIET)]
        x += 15 + CHARACTER * len(words) + 18
    return shapes


def stacked_bars(title: str, description: str, rows: Mapping[str, Mapping[str, int]], legend: Mapping[str, str]) -> str:
    """Draw one bar per row, its parts side by side and as long as they are many.

    Args:
        title: Above the chart.
        description: What it shows, for those who do not see it.
        rows: Label to parts by key of `legend`.
        legend: Keys of the colours, in order, with words.
    """
    left = 20 + CHARACTER * max((len(label) for label in rows), default=0)
    room, top = 420.0, 62.0
    most = max((sum(parts.values()) for parts in rows.values()), default=1) or 1
    shapes = _legend(legend, 12, 44)
    for index, (label, parts) in enumerate(rows.items()):
        y, x = top + index * ROW, left
        shapes.append(text(left - 8, y + 11, label, anchor="end"))
        for key, words in legend.items():
            width = room * parts.get(key, 0) / most
            shapes.append(_rectangle(x, y, width, ROW - 4, COLOURS[key], f"{label}: {parts.get(key, 0)} {words}"))
            x += width
        shapes.append(text(x + 6, y + 11, str(sum(parts.values())), colour=QUIET))
    return picture(max(left + room + 60, _legend_width(legend)), top + ROW * len(rows) + 12, title, description, shapes)


def _legend_width(legend: Mapping[str, str]) -> float:
    return 24 + sum(33 + CHARACTER * len(words) for words in legend.values())


def bars(title: str, description: str, rows: Mapping[str, tuple[int, str]]) -> str:
    """Draw one bar per row under its label, which may be a sentence.

    Args:
        title: Above the chart.
        description: What it shows, for those who do not see it.
        rows: Label to number and colour key.
    """
    room, top, height = 620.0, 44.0, 36
    most = max((number for number, _ in rows.values()), default=1) or 1
    shapes = []
    for index, (label, (number, key)) in enumerate(rows.items()):
        y = top + index * height
        width = room * number / most
        shapes += [
            text(12, y + 10, label if len(label) <= 105 else f"{label[:104]}…"),  # noqa: PLR2004 - what fits
            _rectangle(12, y + 15, width, 12, COLOURS[key], f"{label}: {number}"),
            text(18 + width, y + 25, str(number), colour=QUIET),
        ]
    return picture(room + 80, top + height * len(rows) + 8, title, description, shapes)


def ratio_bars(record: BenchRecord) -> str:
    """Draw the time of each form as a multiple of the first one's, with its quartiles, and a line at 1."""
    rows = [(row, row.ratio.median if row.ratio else 1.0) for row in record.timings if row.milliseconds is not None]
    left = 24 + CHARACTER * max(len(row.form) for row, _ in rows)
    room, top, height = 420.0, 64.0, 30
    most = max([ratio for _, ratio in rows] + [row.ratio.high for row, _ in rows if row.ratio])
    shapes = [text(12, 42, bench_words(record), colour=QUIET)]
    for index, (row, ratio) in enumerate(rows):
        y = top + index * height
        words = f"{ratio:.3f}, {row.milliseconds:.2f} ms"
        shapes += [
            text(left - 8, y + 14, row.form, anchor="end"),
            _rectangle(left, y + 3, room * ratio / most, 14, COLOURS["exact"], f"{row.form}: {words}"),
            text(left + room + 12, y + 14, words, colour=QUIET),
        ]
        if row.ratio:
            low, high = (left + room * value / most for value in (row.ratio.low, row.ratio.high))
            whisker = f"M{low:.1f} {y + 10:.1f}H{high:.1f}M{low:.1f} {y + 6:.1f}v8M{high:.1f} {y + 6:.1f}v8"
            shapes.append(f"<path d='{whisker}' stroke='{INK}' fill='none'/>")
    one, bottom = left + room / most, top + height * len(rows)
    ends = f"x1='{one:.1f}' x2='{one:.1f}' y1='{top - 6:.1f}' y2='{bottom:.1f}'"
    shapes.append(f"<line {ends} stroke='{QUIET}' stroke-dasharray='3 3'/>")
    key = f"Time of one call; {record.timings[0].form} is 1. Whiskers: quartiles of {record.rounds} rounds."
    shapes.append(text(12, bottom + 18, key, colour=QUIET))
    described = "; ".join(f"{row.form} {ratio:.3f}" for row, ratio in rows)
    return picture(left + room + 140, bottom + 30, f"{record.model}: time in each form", described, shapes)


def strips(title: str, description: str, rows: Mapping[str, Sequence[float]], *, most: float) -> str:
    """Draw one strip per row with a mark per value, and its median: how relative changes are spread.

    Args:
        title: Above the chart.
        description: What it shows, for those who do not see it.
        rows: Label to values in ascending order (0.1 is +10 %).
        most: Right end of the axis; larger values are drawn there.
    """
    left, room, top, height = 150.0, 520.0, 50.0, 46
    bottom = top + height * len(rows)
    least = min(0.0, *(values[0] for values in rows.values() if values))

    def place(value: float) -> float:
        return left + room * (min(value, most) - least) / (most - least)

    shapes = []
    for step in range(STEPS + 1):
        value = least + (most - least) * step / STEPS
        x = place(value)
        shapes += [
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{top - 6:.1f}' y2='{bottom:.1f}' stroke='{LINE}'/>",
            text(x, bottom + 16, f"{'≥ ' * (step == STEPS)}{100 * value:+.0f} %", anchor="middle", colour=QUIET),
        ]
    for index, (label, values) in enumerate(rows.items()):
        y = top + index * height
        shapes.append(text(left - 10, y + 18, label, anchor="end"))
        # A thousand marks must still show where most are: as dark as there are many, one alone still seen.
        marks = Counter(round(place(value) / MARK) * MARK for value in values)
        shapes += [
            f"<path d='M{x:.1f} {y + 4:.1f}v20' stroke='{COLOURS['applied']}' stroke-width='{MARK}' "
            f"stroke-opacity='{0.3 + 0.7 * math.log(number) / math.log(max(*marks.values(), 2)):.2f}'/>"
            for x, number in sorted(marks.items())
        ]
        if values:
            middle = values[len(values) // 2]
            shapes += [
                f"<path d='M{place(middle):.1f} {y:.1f}v28' stroke='{INK}' stroke-width='2'/>",
                text(place(middle) + 5, y + 38, f"median {100 * middle:+.1f} %", colour=QUIET),
            ]
    return picture(left + room + 50, bottom + 30, title, description, shapes)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: Words for it.
        kind: Key of its colour and dashes: `converted` or `original`.
        points: (x, y), in the order of x.
        spread: Half of the length of each point's error bar, in units of y; empty for none.
    """

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] = ()


def line_chart(title: str, description: str, lines: Sequence[Line], *, across: str, up: str) -> str:
    """Draw lines over a common pair of axes.

    Args:
        title: Above the chart.
        description: What it shows, for those who do not see it.
        lines: At least one point in all.
        across: Words below the horizontal axis.
        up: Words above the vertical axis.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y + s for line in lines for (_, y), e in _with_spread(line) for s in (-e, e)]
    frame = _Frame(xs, ys, whole=True)
    shapes = frame.axes(across, up)
    for line in lines:
        shapes += _line(line, frame.place)
    shapes += _line_legend(lines, frame.left)
    right, bottom = frame.left + frame.width, frame.top + frame.height
    return picture(right + 30, bottom + 50, title, description, shapes)


@dataclass(frozen=True)
class Dot:
    """A point with a name.

    Attributes:
        label: Its name.
        x: Across.
        y: Up.
        spread: Of y, in both directions; 0 for none.
        kind: Key of the colours of series.
    """

    label: str
    x: float
    y: float
    spread: float = 0.0
    kind: str = "converted"


def dot_chart(title: str, description: str, dots: Sequence[Dot], *, across: str, up: str) -> str:
    """Draw points over a pair of axes; their names stand beside them in a column, each with a line to its point.

    Args:
        title: Above the chart.
        description: What it shows, for those who do not see it.
        dots: At least one.
        across: Words below the horizontal axis.
        up: Words above the vertical axis.
    """
    frame = _Frame([dot.x for dot in dots], [dot.y + s for dot in dots for s in (-dot.spread, dot.spread)])
    shapes = frame.axes(across, up)
    edge = frame.left + frame.width
    heights = _apart([frame.place(dot.x, dot.y)[1] for dot in dots], 15.0)
    for dot, height in zip(dots, heights, strict=True):
        (x, y), colour = frame.place(dot.x, dot.y), SERIES[dot.kind]
        words = f"{dot.label}: {dot.y:.4g}" + (f" ± {dot.spread:.2g}" if dot.spread else "") + f" at {dot.x:.4g}"
        (_, high), (_, low) = frame.place(dot.x, dot.y + dot.spread), frame.place(dot.x, dot.y - dot.spread)
        shapes += [
            f"<path d='M{x:.1f} {y:.1f}L{edge + 12:.1f} {height:.1f}' stroke='{LINE}' fill='none'/>",
            f"<path d='M{x:.1f} {high:.1f}V{low:.1f}' stroke='{colour}'/>",
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}'><title>{escape(words)}</title></circle>",
            text(edge + 16, height + 4, dot.label, colour=colour if dot.kind == "original" else INK),
        ]
    room = 30 + CHARACTER * max(len(dot.label) for dot in dots)
    return picture(edge + room, frame.top + frame.height + 50, title, description, shapes)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Move heights down, in their order, so that no two are nearer than `least`; then all up by half of the most."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    excess = max((moved[i] - heights[i] for i in order), default=0.0) / 2
    return [height - excess for height in moved]


class _Frame:
    """A pair of axes with round numbers."""

    left, top, width, height = 60.0, 70.0, 560.0, 260.0

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, whole: bool = False) -> None:
        self._xs, self._ys = _ticks(min(xs), max(xs), whole=whole), _ticks(min(ys), max(ys))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Give where a point lies in the picture."""
        right = (x - self._xs[0]) / (self._xs[-1] - self._xs[0])
        above = (y - self._ys[0]) / (self._ys[-1] - self._ys[0])
        return self.left + self.width * right, self.top + self.height * (1 - above)

    def axes(self, across: str, up: str) -> list[str]:
        """Draw numbers, words and lines across."""
        left, bottom = self.left, self.top + self.height
        shapes = [text(left - 40, self.top - 12, up, colour=QUIET)]
        for value in self._ys:
            _, y = self.place(self._xs[0], value)
            shapes += [
                f"<path d='M{left:.1f} {y:.1f}h{self.width:.1f}' stroke='{LINE}'/>",
                text(left - 8, y + 4, f"{value:g}", anchor="end", colour=QUIET),
            ]
        for value in self._xs:
            x, _ = self.place(value, self._ys[0])
            shapes.append(text(x, bottom + 18, f"{value:g}", anchor="middle", colour=QUIET))
        shapes.append(text(left + self.width / 2, bottom + 38, across, anchor="middle", colour=QUIET))
        return shapes


def _with_spread(line: Line) -> list[tuple[tuple[float, float], float]]:
    spread = line.spread or [0.0] * len(line.points)
    return list(zip(line.points, spread, strict=True))


def _line(line: Line, place: Callable[[float, float], tuple[float, float]]) -> list[str]:
    """Draw one line with its points, and their error bars where it has them."""
    colour, dashes = SERIES[line.kind], DASHES[line.kind]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
    shapes = [
        f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5' stroke-dasharray='{dashes}'/>"
    ]
    for (x, y), spread in _with_spread(line):
        (at, middle), (_, high), (_, low) = place(x, y), place(x, y + spread), place(x, y - spread)
        label = f"{line.label}: {y:.4g} at {x:g}" + (f" ± {spread:.2g}" if spread else "")
        if spread:
            shapes.append(f"<path d='M{at:.1f} {high:.1f}V{low:.1f}' stroke='{colour}'/>")
        shapes.append(
            f"<circle cx='{at:.1f}' cy='{middle:.1f}' r='2.2' fill='{colour}'><title>{escape(label)}</title></circle>"
        )
    return shapes


def _line_legend(lines: Sequence[Line], x: float) -> list[str]:
    shapes, seen = [], set()
    for line in lines:
        if line.label in seen:
            continue
        seen.add(line.label)
        mark = f"stroke='{SERIES[line.kind]}' stroke-width='2' stroke-dasharray='{DASHES[line.kind]}'"
        shapes += [f"<path d='M{x:.1f} 40h24' {mark}/>", text(x + 30, 44, line.label, colour=QUIET)]
        x += 30 + CHARACTER * len(line.label) + 24
    return shapes


def _ticks(least: float, most: float, *, whole: bool = False) -> list[float]:
    """Give round numbers around a range: 1, 2 or 5 times a power of ten apart."""
    room, largest = most - least, max(abs(least), abs(most))
    if room <= ALIKE * largest:  # else the lines would fall together
        room = largest
    room = room if room > SMALLEST else 1.0
    step = 10.0 ** math.floor(math.log10(room / STEPS))
    step *= next(factor for factor in (1, 2, 5, 10) if room / (step * factor) <= STEPS + 1)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(least / step), math.ceil(most / step)
    return [round(step * i, 10) for i in range(first, max(last, first + 1) + 1)]
