"""What a page says is what report.json says, to the last digit that is shown."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

PREFIXES = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12}
DIGITS = 4  # of a number with a prefix; zeros at its end are left out: 118 M is 118.0 M
SHARE_DIGITS = 3
IDLE = {"Identity", "Dropout"}  # what costs nothing before and after is not shown


def read(text: str) -> tuple[Decimal, Decimal]:
    """Give the number that a text shows, and half a unit of its last digit."""
    match = re.fullmatch(r"([+−-]?\d+(?:\.\d+)?)(?:e([+-]\d+))?\s?([kMGT]?)B?(%?)", text)
    assert match, f"{text!r} is no number"
    digits, power, prefix, share = match.groups()
    number = Decimal(digits.replace("−", "-"))
    if prefix or share:
        last = number.adjusted() - ((DIGITS if prefix else SHARE_DIGITS) - 1) if number else 0
        last = min(last, 0) if share else last
    else:
        last = int(number.as_tuple().exponent)
    scale = PREFIXES[prefix] + int(power or 0) - 2 * bool(share)
    return number.scaleb(scale), Decimal("0.5").scaleb(last + scale)


def agree(text: str, number: float) -> bool:
    shown, half = read(text)
    return abs(shown - Decimal(number)) <= half * (1 + Decimal("1e-9"))


def at(told: Any, path: str) -> Any:  # noqa: ANN401 - any JSON
    for key in path.split("."):
        told = told[int(key)] if isinstance(told, list) else told[key]
    return told


def shown(page: Page) -> dict[str, list[str]]:
    """Give the texts by their place in the report."""
    found = page.eval_on_selector_all("[data-json]", "all => all.map(one => [one.dataset.json, one.textContent])")
    texts: dict[str, list[str]] = {}
    for path, text in found:
        texts.setdefault(path, []).append(text)
    return texts


def expected(told: dict[str, Any]) -> set[str]:
    """Give the places of all figures that a page must show."""
    places = {
        f"{side}.{what}" for side in ("before", "after")
        for what in ("params", "macs", "activation_bytes", "weight_bytes")
    }  # fmt: skip
    for i, site in enumerate(told["sites"]):
        places |= {f"sites.{i}.{side}.{what}" for side in ("before", "after") for what in ("params", "macs")}
        places |= {f"sites.{i}.positions_read"} if site["positions_read"] is not None else set()
    places |= {f"checks.{i}.value" for i, check in enumerate(told["checks"]) if check["value"] is not None}
    known = {part["path"]: part for part in told["parts_before"]}
    for side in ("parts_before", "parts_after"):
        for i, part in enumerate(told[side]):
            cost = part["params"], part["macs"]
            before = known.get(part["path"])
            same = side == "parts_after" and before is not None and cost == (before["params"], before["macs"])
            nothing = part["type_name"] in IDLE or (not part["path"] and not any(cost))
            if not same and not nothing:
                places |= {f"{side}.{i}.params", f"{side}.{i}.macs"}
    return places


@pytest.mark.parametrize(
    ("text", "number", "fits"),
    [
        ("25.56 M", 25_557_032, True), ("25.56 M", 25_565_001, False), ("25.56 M", 25_554_999, False),
        ("118 M", 118_013_952, True), ("118 M", 118_060_000, False), ("12 kB", 12_004, True), ("12 kB", 12_006, False),
        ("313", 313, True), ("313", 314, False), ("0", 0, True), ("0", 1, False), ("2.6e-14", 2.55e-14, True),
        ("2.6e-14", 2.54e-14, False), ("25%", 0.25, True), ("25%", 0.2507, False), ("100%", 1.0, True),
        ("73.5%", 0.7346, True), ("73.5%", 0.7361, False), ("-1.5 M", -1_500_400, True),
    ],
)  # fmt: skip
def test_texts_are_read_to_half_a_unit(text: str, number: float, fits: bool) -> None:
    assert agree(text, number) == fits


def test_all_figures_are_those_of_the_report(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    told, texts = bundle.json, shown(visit(bundle.page).page)
    wrong = [
        (path, text, at(told, path)) for path, all_ in texts.items() for text in all_ if not agree(text, at(told, path))
    ]
    assert wrong == []
    assert expected(told) - set(texts) == set()
    assert sum(map(len, texts.values())) > 40


def test_changes_are_those_of_the_figures(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    page, told = visit(bundle.page).page, bundle.json
    changes = page.eval_on_selector_all(
        ".tile:has([data-json]), #site-table td:has([data-json])",
        """cells => cells.map(cell => [
            (cell.querySelector(".change") ?? cell.firstElementChild.firstChild).textContent,
            ...Array.from(cell.querySelectorAll("[data-json]"), one => one.dataset.json),
        ])""",
    )
    assert len(changes) == 4 + 2 * len(told["sites"])
    for text, *paths in changes:
        before, after = (at(told, path) for path in paths)
        if before == after:
            assert text == "±0%"
        elif not before:
            assert text == "new"
        else:
            number, half = (
                Decimal(text.rstrip("%")),
                Decimal("0.5").scaleb(int(Decimal(text.rstrip("%")).as_tuple().exponent)),
            )
            assert abs(number - 100 * Decimal(after - before) / Decimal(before)) <= half


def test_a_wrong_figure_is_found(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    told, page = resnet50.json, visit(resnet50.page).page
    page.evaluate("document.querySelector('[data-json=\"before.params\"]').textContent = '25.57 M'")
    wrong = [path for path, all_ in shown(page).items() for text in all_ if not agree(text, at(told, path))]
    assert wrong == ["before.params"]
