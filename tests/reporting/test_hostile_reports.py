"""A report.json that somebody has damaged is refused in words, or shown; it neither hangs nor ends in a traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from spdify.bundle import read_report
from spdify.errors import BundleError
from spdify.records import MAX_PARTS, Geometry
from spdify.reporting import report_markdown, report_page

if TYPE_CHECKING:
    from pathlib import Path

    from spdify.records import Report

HUGE = 10**400
LIMIT = {"text": "macs=+1", "quantity": "macs", "original": 1, "allowed": 1}
PART = {"path": "a", "type_name": "A", "params": 1, "macs": 1, "activation_bytes": 1}


def budget(*, cost: object = 1, limit: object = LIMIT, **site: object) -> dict[str, object]:
    forms = [{"name": "a", "cost": {} if cost is None else {"macs": cost}}]
    whole = {"site": "x", "size": [1, 1], "rewrite": "r", "forms": forms, "standard": "a", **site}
    return {"limits": [limit], "prefer": "last", "sites": [whole]}


REFUSED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "inputs of no size": (("origin", "inputs", 0, "args", 0, "shape"), [1, 3, 0, 0]),
    "no origins": (("kernels", 0, "after", 0, "origins"), []),
    "a huge scale": (("kernels", 0, "after", 0, "scale"), [10**9, 10**9]),
    "a huge kernel": (("kernels", 0, "before", "kernel"), [10**5, 10**5]),
    "no kernel": (("kernels", 0, "before", "kernel"), []),
    "a kernel of three axes": (("kernels", 0, "before", "kernel"), [3, 3, 1]),
    "one flag": (("kernels", 0, "after", 0, "fresh"), [True]),
    "a negative scale": (("kernels", 0, "after", 0, "scale"), [-2, -2]),
    "an origin that is none": (("kernels", 0, "after", 0, "origins", 0), 2**40),
    "no calls": (("decisions", 0, "site", "calls"), []),
    "a huge input": (("decisions", 0, "site", "calls", 0, "input"), [1, 3, 2**40, 5]),
    "no stride": (("decisions", 0, "site", "geometry", "stride"), [0, 0]),
    "fewer axes": (("decisions", 0, "site", "geometry", "kernel"), [3]),
    "a huge window": (("decisions", 0, "site", "geometry", "kernel"), [2**30, 3]),
    "huge padding": (("decisions", 0, "site", "geometry", "padding"), [2**30, 3]),
    "huge costs": (("before", "params"), HUGE),
    "negative costs": (("parts_after", 0, "macs"), -1),
    "no forms": (("budget",), budget(forms=[])),
    "no cost": (("budget",), budget(cost=None)),
    "a huge cost": (("budget",), budget(cost=HUGE)),
    "a cost that is no number": (("budget",), budget(cost=float("nan"))),
    "a huge limit": (("budget",), budget(limit=LIMIT | {"original": HUGE})),
    "a form that there is not": (("budget",), budget(chosen="b")),
    "huge memory": (("peak_memory_bytes",), HUGE),
    "parts at one path": (("parts_before",), [PART] * 3),
    "parts without end": (("parts_after",), [PART | {"path": f"p{i}"} for i in range(MAX_PARTS + 1)]),
    "a negative shape": (("parts_after", 0, "output"), [1, -4, -4, -4]),
}  # fmt: skip
SHOWN: dict[str, tuple[tuple[Any, ...], Any]] = {
    "a large input": (("decisions", 0, "site", "calls", 0, "input"), [1, 3, 2**31, 2**31]),
    "an empty input": (("decisions", 0, "site", "calls", 0, "input"), [1, 3, 0, 0]),
    "no parts before": (("parts_before",), []),
    "no sites": (("sites",), []),
    "an output of one axis": (("parts_after", 0, "output"), [7]),
    "a budget": (("budget",), budget()),
    "parts at many paths": (("parts_after",), [PART | {"path": f"p{i}"} for i in range(MAX_PARTS)]),
    "turned text": (("model",), "a\u202eb\x1b[2J"),
}  # fmt: skip


def damaged(report: Report, tmp_path: Path, change: tuple[tuple[Any, ...], Any]) -> Path:
    data = json.loads(report.model_dump_json())
    path, value = change
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused(report: Report, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*report\.json: at "):
        read_report(damaged(report, tmp_path, REFUSED[name]))


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_odd_is_shown(report: Report, tmp_path: Path, name: str) -> None:
    read = read_report(damaged(report, tmp_path, SHOWN[name]))
    page = report_page(read)
    assert "</html>" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert report_markdown(read)


def test_shares_of_large_maps_are_counted_without_going_through_them() -> None:
    window = Geometry(in_channels=1, out_channels=1, kernel=(1, 3), stride=(2, 4), padding=(0, 1), dilation=(1, 1))
    assert window.positions_read((2**30, 2**30)) == pytest.approx(0.5 * 0.75)
