"""Pictures of the diff report: a network along its depth, an error on a scale, where the taps of a kernel went."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from spdify.reporting.pictures import CHARACTER, DASHES, INK, LINE, QUIET, SERIES, picture, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spdify.records import Kernel, Shape, Taps
    from spdify.reporting.pairs import Depth

LEFT, WIDTH, PANEL = 64.0, 640.0, 150.0
LEAST_ERROR, DECADES = 1e-16, 16
METER = 96.0  # width of a scale of errors, in pixels
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGE_CELL, CELL, SMALL_CELL = 34, 29, 11  # of kernels up to 4, up to 8, above
GAP = 10


def depth_chart(title: str, depth: Depth, sides: tuple[str, str] = ("before", "after")) -> str:
    """Draw resolution and channels of what leaves each part over two panels with log₂ axes.

    Args:
        title: Above the chart.
        depth: What to draw.
        sides: What the two networks are called.
    """
    count = max(len(depth.names), 2)

    def across(index: int) -> float:
        return LEFT + WIDTH * index / (count - 1)

    shapes, top = _keys(depth, sides), 96.0
    none: dict[int, int] = {}
    panels = (
        ("side of the maps, positions", depth.sides_before, depth.sides_after, none),
        ("channels", depth.channels_before, depth.channels_after, depth.read),
    )
    for words, before, after, marks in panels:
        shapes += _panel(words, before, after, marks, top, across)
        top += PANEL + 52
    shapes += _stage_marks(depth, across, top - 30)
    first, second = sides
    described = f"Side of the maps: {first} {_said(depth.sides_before)}; {second} {_said(depth.sides_after)}. "
    described += f"Channels: {first} {_said(depth.channels_before)}; {second} {_said(depth.channels_after)}."
    return picture(LEFT + WIDTH + 40, top + 8, title, described, shapes)


def _said(values: Sequence[int | None]) -> str:
    """Give the values in order, each run once."""
    return ", ".join(str(value) for value, _ in groupby(v for v in values if v is not None))


def _keys(depth: Depth, sides: tuple[str, str]) -> list[str]:
    shapes, x = [], LEFT
    for kind, words in zip(("original", "converted"), sides, strict=True):
        mark = f"stroke='{SERIES[kind]}' stroke-width='2' stroke-dasharray='{DASHES[kind]}'"
        shapes += [f"<path d='M{x:.0f} 42h26' {mark}/>", text(x + 32, 46, words, colour=QUIET)]
        x += 32 + CHARACTER * len(words) + 26
    if depth.read:
        words = "channels behind the space-to-depth of a replaced site"
        shapes += [_diamond(x + 6, 42), text(x + 18, 46, words, colour=QUIET)]
    return shapes


def _diamond(x: float, y: float) -> str:
    return f"<path d='M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z' fill='{SERIES['converted']}'/>"


def _panel(  # noqa: PLR0913 - what to draw and where
    words: str, before: Sequence[int | None], after: Sequence[int | None], marks: dict[int, int], top: float,
    across: Callable[[int], float],
) -> list[str]:  # fmt: skip
    values = [v for v in (*before, *after, *marks.values()) if v]
    least, most = (math.log2(f(values)) for f in (min, max)) if values else (0.0, 1.0)
    low, high = math.floor(least), max(math.ceil(most), math.floor(least) + 1)

    def up(value: int) -> float:
        return top + PANEL * (1 - (math.log2(value) - low) / (high - low))

    shapes = [text(LEFT - 48, top - 12, words, colour=QUIET)]
    step = max(1, (high - low) // 6)
    for power in range(low, high + 1, step):
        y = up(2**power)
        shapes += [
            f"<path d='M{LEFT:.0f} {y:.1f}h{WIDTH:.0f}' stroke='{LINE}'/>",
            text(LEFT - 8, y + 4, str(2**power), anchor="end", colour=QUIET),
        ]
    for kind, series in (("converted", after), ("original", before)):
        stroke = f"stroke='{SERIES[kind]}' stroke-width='2' stroke-dasharray='{DASHES[kind]}' fill='none'"
        shapes.append(f"<path d='{_steps(series, across, up)}' {stroke}/>")
    return shapes + [_diamond(across(i), up(value)) for i, value in marks.items()]


def _steps(series: Sequence[int | None], across: Callable[[int], float], up: Callable[[int], float]) -> str:
    """Give the path through the known values; over parts of which the size is not known, the last one holds."""
    points = [(across(i), up(value)) for i, value in enumerate(series) if value]
    if not points:
        return ""
    (x, y), *others = points
    return f"M{x:.1f} {y:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in others) + "h0.1" * (not others)


def _stage_marks(depth: Depth, across: Callable[[int], float], bottom: float) -> list[str]:
    """Name the stages below, as far as there is room."""
    shapes, free = [], 0.0
    for index, name in depth.stages:
        x = across(index)
        shapes.append(f"<path d='M{x:.1f} {bottom:.1f}v5' stroke='{INK}'/>")
        shown = name if len(name) <= 24 else f"…{name[-23:]}"  # noqa: PLR2004 - what is read at a glance
        if x >= free and x + CHARACTER * len(shown) < LEFT + WIDTH + 36:
            shapes.append(text(x, bottom + 17, shown, colour=QUIET))
            free = x + CHARACTER * len(shown) + 8
    return shapes


def error_meter(value: float, limit: float | None, *, reversed_limit: bool = False) -> str:
    """Draw an error as a dot on a scale of powers of ten, with its limit as a bar; beside its number, so not read out.

    Args:
        value: The error; 0 lies at the left end.
        limit: What is allowed; None for nothing to compare with.
        reversed_limit: The limit is the least that is allowed.
    """

    def place(number: float) -> float:
        share = math.log10(min(max(number, LEAST_ERROR), 1.0) / LEAST_ERROR) / DECADES
        return 4 + METER * share

    parts = [f"<path d='M4 8h{METER:.0f}' stroke='{LINE}' stroke-width='3'/>"]
    if limit:
        side = place(limit)
        allowed = f"M{side:.1f} 8H{4 + METER:.0f}" if reversed_limit else f"M4 8H{side:.1f}"
        parts.append(f"<path d='{allowed}' stroke='{SERIES['converted']}' stroke-width='3' stroke-opacity='.45'/>")
        parts.append(f"<path d='M{side:.1f} 2v12' stroke='{INK}' stroke-width='1.5'/>")
    parts.append(f"<circle cx='{place(value):.1f}' cy='8' r='4' fill='{INK}'/>")
    size = f"viewBox='0 0 {METER + 8:.0f} 16' width='{METER + 8:.0f}' height='16'"
    return f"<svg class='meter' {size} aria-hidden='true' focusable='false'>{''.join(parts)}</svg>"


def kernel_picture(kernel: Kernel, label: str) -> str:
    """Draw a kernel before, and where its weights are after: one grid per phase of space-to-depth.

    Args:
        kernel: Where each weight went.
        label: What it shows, for those who do not see it.
    """
    size = _cell_size(kernel)
    lettered = next((taps for taps in kernel.after if math.prod(taps.scale) > 1), None)
    letters = _phase_of_taps(kernel.before, lettered) if lettered else {}
    most = max((*kernel.before.sizes, *(s for taps in kernel.after for s in taps.sizes)), default=0.0)
    shapes = _grid(kernel.before, 0, 28, size, most, letters=letters)
    rows, columns = _rows(kernel.before.kernel)
    shapes.insert(0, f"<text class='l' x='0' y='14'>before {escape(_size_words(kernel.before))}</text>")
    height: float = 28 + rows * size
    x: float = max(columns * size + 24, 8 * len(f"before {_size_words(kernel.before)}"))
    shapes.append(f"<text class='l' x='{x:.0f}' y='{28 + rows * size / 2 + 4:.0f}'>→</text>")
    x += 28
    for taps in kernel.after:
        drawn, wide, high = _phases(taps, x, 28, size, most)
        title = _size_words(taps)
        shapes.append(f"<text class='l' x='{x:.0f}' y='14'>{escape(title)}</text>")
        shapes += drawn
        x += max(wide, 7 * len(title)) + 28
        height = max(height, 28 + high)
    box = f"viewBox='0 0 {x:.0f} {height + 4:.0f}' width='{x:.0f}' height='{height + 4:.0f}'"
    return f"<svg class='kernel' {box} role='img' aria-label='{escape(label)}'>{''.join(shapes)}</svg>"


def _size_words(taps: Taps) -> str:
    sizes = "×".join(map(str, taps.kernel))
    phases = math.prod(taps.scale)
    name = f"{taps.tensor}, " if taps.tensor not in {"", "weight"} else ""
    return f"{name}{phases} phases of {sizes}" if phases > 1 else f"{name}{sizes}"


def _cell_size(kernel: Kernel) -> int:
    longest = max(kernel.before.kernel)
    return LARGE_CELL if longest <= 4 else CELL if longest <= 8 else SMALL_CELL  # noqa: PLR2004 - see above


def _rows(shape: Shape) -> tuple[int, int]:
    """Give rows and columns of a grid over one or two axes."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def _phase_of_taps(before: Taps, after: Taps) -> dict[int, int]:
    """Give the phase in which each tap is found; of weights that stayed, that of the window that reads as they do."""
    each = math.prod(after.kernel)
    found = {origin: place // each for place, origin in enumerate(after.origins) if origin >= 0}
    return found if len(found) == len(before.origins) else {}


def _grid(  # noqa: PLR0913 - what to draw and where
    taps: Taps, x: float, y: float, size: int, most: float, *, first: int = 0, letters: dict[int, int] | None = None
) -> list[str]:
    """Draw one phase of a kernel, whose taps begin at `first`."""
    rows, columns = _rows(taps.kernel)
    shapes = []
    for place in range(rows * columns):
        index = first + place
        left, top = x + place % columns * size, y + place // columns * size
        origin = taps.origins[index]
        fresh = bool(taps.fresh) and taps.fresh[index]
        strength = 0.12 + 0.5 * taps.sizes[index] / most if taps.sizes and most else 0.25
        kind = "w" if origin >= 0 else "n" if fresh else "e"
        shade = f" fill-opacity='{strength:.2f}'" if kind == "w" else ""
        inset = 1 if size > SMALL_CELL else 0.5
        box = f"x='{left + inset:g}' y='{top + inset:g}' width='{size - 2 * inset:g}' height='{size - 2 * inset:g}'"
        shapes.append(f"<rect class='{kind}' {box}{shade}/>")
        if size > SMALL_CELL and (origin >= 0 or fresh):
            words = str(origin + 1) if origin >= 0 else "1"
            lettered = letters is not None and index in letters
            across = left + size / 2 - 4 * lettered
            shapes.append(f"<text x='{across:g}' y='{top + size / 2 + 4 + 3 * lettered:g}'>{words}</text>")
        if size > SMALL_CELL and letters and index in letters:
            shapes.append(f"<text class='p' x='{left + size - 6:g}' y='{top + 10:g}'>{_letter(letters[index])}</text>")
    return shapes


def _letter(phase: int) -> str:
    return LETTERS[phase] if phase < len(LETTERS) else str(phase + 1)


def _phases(taps: Taps, x: float, y: float, size: int, most: float) -> tuple[list[str], float, float]:
    """Draw all phases of a kernel as they lie in a block of positions; give the shapes, their width and height."""
    down, along = _rows(taps.scale)
    rows, columns = _rows(taps.kernel)
    single = rows * columns == 1
    gap = 0 if single else GAP
    titled = 14 if down * along > 1 and not single else 0
    shapes = []
    for phase in range(down * along):
        left = x + phase % along * (columns * size + gap)
        top = y + phase // along * (rows * size + gap + titled) + titled
        if titled:
            shapes.append(f"<text class='p' x='{left + 4:g}' y='{top - 3:g}'>{_letter(phase)}</text>")
        letters = {phase: phase} if single and down * along > 1 else None
        shapes += _grid(taps, left, top, size, most, first=phase * rows * columns, letters=letters)
    return shapes, along * (columns * size + gap), down * (rows * size + gap + titled)
