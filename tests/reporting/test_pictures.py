from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from spdify.reporting.pictures import Dot, Line, _apart, _ticks, dot_chart, line_chart


def chart(*lines: Line) -> ET.Element:
    return ET.fromstring(line_chart("a < b", "words", lines, across="epoch", up="top-1, %"))  # noqa: S314 - our own


def test_every_point_is_drawn_where_it_belongs() -> None:
    picture = chart(
        Line("original", "original", [(1, 10), (2, 30), (3, 20)]), Line("c", "converted", [(1, 20), (3, 40)])
    )
    circles = [e for e in picture.iter() if e.tag.endswith("circle")]
    places = [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in circles]
    assert len(places) == 5
    assert places[0][0] == places[3][0] < places[1][0] < places[2][0] == places[4][0]
    assert places[0][1] > places[2][1] > places[1][1] > places[4][1]
    titles = [c[0].text for c in circles]
    assert titles[1] == "original: 30 at 2"
    texts = [e.text for e in picture.iter() if e.tag.endswith("text")]
    assert {"a < b", "epoch", "top-1, %", "original", "c"} <= set(texts)


def test_networks_are_told_apart_without_colour() -> None:
    text = line_chart("t", "d", [Line("a", "converted", [(1, 1)]), Line("b", "original", [(1, 2)])], across="x", up="y")
    assert len(set(re.findall(r"polyline[^>]*stroke-dasharray='([^']*)'", text))) == 2


def test_error_bars() -> None:
    text = line_chart("t", "d", [Line("a", "converted", [(8, 50), (16, 60)], [2.0, 0.0])], across="x", up="y")
    assert "a: 50 at 8 ± 2" in text
    assert "a: 60 at 16<" in text


@pytest.mark.parametrize(
    ("least", "most", "whole"),
    [(1, 10, True), (1, 1, True), (0.3, 0.31, False), (-5, 95, False), (7, 7, False), (0, 0, False)],
)
def test_ticks_hold_the_range(least: float, most: float, whole: bool) -> None:
    ticks = _ticks(least, most, whole=whole)
    assert ticks[0] <= least <= most <= ticks[-1]
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    if whole:
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("points", [(1.0, 1.0 + 1e-15), (1e-12, 2e-12), (0, 5e-324), (-3e38, 3e38), (3e38, 3e38)])
def test_losses_that_hardly_differ_are_drawn(points: tuple[float, float]) -> None:
    line = Line("a", "converted", list(enumerate(points, start=1)))
    assert "nan" not in line_chart("t", "d", [line], across="epoch", up="loss")


def test_dots_are_where_they_belong_and_their_names_apart() -> None:
    dots = [Dot("a", 1, 50), Dot("b", 1, 50, 2.0), Dot("o", 3, 40, kind="original")]
    picture = ET.fromstring(dot_chart("t", "d", dots, across="x", up="y"))  # noqa: S314 - our own
    circles = [e for e in picture.iter() if e.tag.endswith("circle")]
    (ax, ay), (bx, by), (ox, oy) = [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in circles]
    assert (ax, ay) == (bx, by)
    assert ox > ax
    assert oy > ay
    assert [c[0].text for c in circles] == ["a: 50 at 1", "b: 50 ± 2 at 1", "o: 40 at 3"]
    heights = {e.text: float(e.get("y", "nan")) for e in picture.iter() if e.tag.endswith("text")}
    assert abs(heights["a"] - heights["b"]) >= 15


@pytest.mark.parametrize("heights", [[5.0], [1.0, 1.0, 1.0], [30.0, 0.0, 10.0], [0.0, 100.0, 101.0]])
def test_heights_are_moved_apart_in_their_order(heights: list[float]) -> None:
    moved = _apart(heights, 15)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    gaps = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(gap >= 15 - 1e-9 for gap in gaps)
