from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from spdify.reporting.pictures import Line, _ticks, line_chart


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
