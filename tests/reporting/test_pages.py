from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import spdify
from spdify.records import BundleRecord, Check, Report
from spdify.reporting import report_page
from spdify.reporting.figures import change, quantity

if TYPE_CHECKING:
    from spdify.pipeline import Conversion

HOSTILE = "</script><img src=x onerror=alert(1)>&'\""


class Page(HTMLParser):
    """Ids, links and texts by data-json of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.numbers: dict[str, str] = {}
        self.words: list[str] = []
        self._path = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"][1:]] if named.get("href", "").startswith("#") else []
        self.loaded += [value for name, value in named.items() if name in {"src", "srcset", "data"}]
        self.loaded += [named["href"]] if "href" in named and not named["href"].startswith("#") else []
        self._path = named.get("data-json", "")

    def handle_data(self, data: str) -> None:
        if self._path:
            self.numbers[self._path] = data
        self._path = ""
        self.words.append(data)


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    class Odd(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2, 2), Odd(4, 6, 3, 2, 1), nn.Conv2d(6, 6, 1, 2), nn.Flatten()
    )
    return spdify.convert(net, example_input=torch.randn(1, 3, 33, 32), command="spdify convert net.py:build")


@pytest.fixture(scope="module")
def page(conversion: Conversion) -> Page:
    return Page(report_page(conversion.report, conversion.record()))


def test_every_link_has_a_target_and_every_id_is_one(page: Page) -> None:
    assert len(page.links) > 15
    assert set(page.links) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert page.loaded == []
    assert not {"img", "link", "iframe", "object", "image", "use"} & set(page.tags)
    assert page.tags.count("script") == page.tags.count("style") == 1


def test_numbers_are_those_of_the_record(page: Page, conversion: Conversion) -> None:
    report = conversion.report
    assert page.numbers["before.params"] == quantity(report.before.params)
    assert page.numbers["after.macs"] == quantity(report.after.macs)
    for i, cost in enumerate(report.sites):
        assert page.numbers[f"sites.{i}.after.macs"] == quantity(cost.after.macs)
    for side, parts in (("parts_before", report.parts_before), ("parts_after", report.parts_after)):
        shown = [i for i in range(len(parts)) if f"{side}.{i}.macs" in page.numbers]
        assert all(page.numbers[f"{side}.{i}.macs"] == quantity(parts[i].macs) for i in shown)
        assert len(shown) >= 3
    values = [check.value for check in report.checks]
    assert all(f"checks.{i}.value" in page.numbers for i, value in enumerate(values) if value is not None)
    assert change(report.before.macs, report.after.macs) in page.words


def test_what_stays_and_why_is_told(page: Page) -> None:
    text = " ".join(page.words)
    assert "1 refused" in text
    assert "○ refused" in text
    assert "2 stays as it was: Odd computes more than Conv2d" in text
    assert "spdify convert net.py:build" in page.words


def test_failed_and_open_checks_are_named_as_not_proved(conversion: Conversion) -> None:
    checks = (
        Check(name="whole model, eval", outcome="not run", detail="it is too large"),
        Check(name="onnx batch 1", outcome="failed", value=0.5, tolerance=1e-4),
    )
    text = report_page(conversion.report.model_copy(update={"checks": checks}))
    opened = text.partition('id="not-proved"')[2].partition("</ul>")[0]
    assert "whole model, eval: not run. it is too large" in opened
    assert "onnx batch 1: failed" in opened
    assert "✗ failed" in text


def test_a_hostile_name_stays_text(conversion: Conversion) -> None:
    report = conversion.report
    site = report.decisions[0].site.model_copy(update={"path": HOSTILE})
    first = report.decisions[0].model_copy(update={"site": site, "reason": HOSTILE, "rule": HOSTILE})
    decisions = (first, *report.decisions[1:])
    parts = tuple(part.model_copy(update={"type_name": HOSTILE, "stage": HOSTILE}) for part in report.parts_after)
    kernels = tuple(
        kernel.model_copy(
            update={
                "site": HOSTILE,
                "before": kernel.before.model_copy(update={"tensor": HOSTILE}),
                "after": tuple(taps.model_copy(update={"tensor": HOSTILE}) for taps in kernel.after),
            }
        )
        for kernel in report.kernels[:1]
    )
    checks = (Check(name=HOSTILE, outcome="failed", detail=HOSTILE),)
    changed = {"model": HOSTILE, "decisions": decisions, "parts_after": parts, "kernels": kernels, "checks": checks}
    page = Page(report_page(report.model_copy(update=changed)))
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert page.words.count(HOSTILE) > 5
    assert any("4 phases" in words and HOSTILE in words for words in page.words)


def test_an_earlier_release_s_report_makes_a_page(conversion: Conversion) -> None:
    gone = {"parts_before", "parts_after", "kernels", "origin", "compared"}
    old = conversion.report.model_dump(mode="json", exclude=gone)
    for cost in old["sites"]:
        del cost["positions_read"]
    text = report_page(Report.model_validate(old))
    assert "Its blocks were not recorded" in text
    assert "as before" not in Page(text).numbers.values()


def test_a_page_says_what_became_of_the_network_since(conversion: Conversion) -> None:
    record = conversion.record()
    assert 'id="since"' not in report_page(conversion.report, record)
    made = BundleRecord.model_validate(record.model_dump() | {"calibrations": [CALIBRATION]})
    assert "error against the original 0.5 before, 0.25 after" in report_page(conversion.report, made)


CALIBRATION = {
    "data": "digits", "images": 10, "held_out": 3, "before": 0.5, "after_pools": 0.3, "after": 0.25,
    "preprocessing": {"input_size": (3, 8, 8), "mean": (0.5,), "std": (0.5,)},
}  # fmt: skip


def test_only_the_page_s_own_script_may_run(conversion: Conversion) -> None:
    text = report_page(conversion.report)
    policy = re.search(r'content="(default-src [^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline'; script-src 'sha256-" in policy[1]


def test_a_block_tells_of_all_sites_in_it_changed_or_not() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.short = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.main(x) + self.short(x)

    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Block(), nn.Flatten(), nn.Linear(128, 4))
    made = spdify.convert(net, example_input=torch.randn(1, 3, 16, 16), rules="spd-released", proof="site")
    page = report_page(made.report)
    row = page[page.index('<span class="path">1</span>') :].partition("</tr>")[0]
    assert "◆ changed" in row
    assert "○ kept" in row
    assert [name for name in ("1.main", "1.short") if f">{name}</a>" in row] == ["1.main", "1.short"]
    assert "○ 1 with a site that stays" in page
