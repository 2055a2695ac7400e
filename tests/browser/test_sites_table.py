"""The table of sites is sorted and filtered, with a mouse and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from spdify.records import Decision, Report
    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

HEADS = ("site", "operator", "decision", "parameters", "MACs", "reads", "claim, or why not")


def names(page: Page) -> list[str]:
    rows = page.locator("#site-table tbody tr:not([hidden]) th .path")
    return [text.strip() for text in rows.all_text_contents()]


def keys(report: Report, head: str) -> dict[str, str | float]:
    """Give what rows are sorted by, from the report alone."""
    costs = {cost.name: cost for cost in report.sites}

    def grown(decision: Decision, what: str) -> float:
        cost = costs.get(decision.site.name)
        return 0 if cost is None else getattr(cost.after, what) - getattr(cost.before, what)

    of: dict[str, Callable[[int, Decision], str | float]] = {
        "site": lambda place, _: place,
        "operator": lambda _, d: d.site.window.lower(),
        "decision": lambda _, d: ("applied", "kept", "refused").index(d.action),
        "parameters": lambda _, d: grown(d, "params"),
        "MACs": lambda _, d: grown(d, "macs"),
        "reads": lambda _, d: d.site.positions_read,
        "claim, or why not": lambda _, d: (d.claim.value if d.claim else d.reason).lower(),
    }
    return {d.site.name: of[head](place, d) for place, d in enumerate(report.decisions)}


def assert_heads_sort(bundle: Bundle, page: Page) -> None:
    report = bundle.report
    before = names(page)
    assert before == list(keys(report, "site"))  # in the order of the network
    for place, head in enumerate(HEADS):
        by = keys(report, head)
        column = page.locator("#site-table thead th").nth(place)
        assert column.get_attribute("aria-sort") is None
        for order, down in (("ascending", False), ("descending", True)):
            page.get_by_role("button", name=head, exact=True).click()
            shown = names(page)
            assert sorted(shown) == sorted(before)
            found = [by[name] for name in shown]
            assert found == sorted(found, reverse=down)
            assert column.get_attribute("aria-sort") == order
            assert page.locator("#site-table [aria-sort]").count() == 1


def test_each_head_sorts_up_and_down(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    assert_heads_sort(bundle, visit(bundle.page).page)


def test_each_head_sorts_on_a_phone(small: Bundle, visit: Callable[..., Visit]) -> None:
    assert_heads_sort(small, visit(small.page, width=400).page)


def test_numbers_are_sorted_as_numbers(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    report = resnet50.report
    by = keys(report, "parameters")
    assert sorted(by.values()) != sorted(by.values(), key=str)  # as texts they would come in another order
    page = visit(resnet50.page).page
    page.get_by_role("button", name="parameters").click()
    assert [by[name] for name in names(page)] == sorted(by.values())


def test_another_head_takes_over(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(resnet50.page).page
    before = names(page)
    for head in ("MACs", "reads", "site"):
        page.get_by_role("button", name=head, exact=True).click()
    assert names(page) == before
    assert page.locator("#site-table [aria-sort]").count() == 1


def test_words_and_decisions_filter_and_the_count_is_said(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    said = page.locator("form.filter output[aria-live=polite]")
    words, decision = page.get_by_label("Filter"), page.get_by_label("Decision")
    decisions = {d.site.name: d.action for d in small.report.decisions}
    assert set(decisions.values()) == {"applied", "kept", "refused"}
    assert said.inner_text() == "5 of 5 sites"
    for action in ("applied", "kept", "refused"):
        decision.select_option(action)
        found = [name for name, done in decisions.items() if done == action]
        assert names(page) == found
        assert said.inner_text() == f"{len(found)} of 5 sites"
    decision.select_option("all")
    words.fill("  CONV2D   1x1 ")
    assert names(page) == ["down"]
    assert said.inner_text() == "1 of 5 sites"
    decision.select_option("refused")
    assert names(page) == []
    assert said.inner_text() == "0 of 5 sites"
    words.fill("")
    assert names(page) == ["doubled"]
    decision.select_option("all")
    assert said.inner_text() == "5 of 5 sites"


def test_words_are_found_within_a_line_alone(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(resnet50.page).page
    page.get_by_label("Filter").fill("conv13×224")  # conv1, and in the next line 3×224×224
    assert names(page) == []


def test_what_is_sorted_stays_filtered(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    page.get_by_label("Decision").select_option("applied")
    page.get_by_role("button", name="MACs").click()
    page.get_by_role("button", name="MACs").click()
    by = keys(small.report, "MACs")
    assert [by[name] for name in names(page)] == sorted((by[n] for n in ("stem", "down", "average")), reverse=True)


def test_the_keyboard_is_enough(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    reached: list[str] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
        if reached[-1] == HEADS[-1]:
            break
    assert reached[0] == "Skip to the content"
    assert [name for name in reached if name in {"words", "action", *HEADS}] == ["words", "action", *HEADS]
    for _ in range(len(HEADS) - 1 - HEADS.index("MACs")):
        page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == "MACs"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    by = keys(small.report, "MACs")
    page.keyboard.press("Enter")
    assert [by[name] for name in names(page)] == sorted(by.values())
    page.keyboard.press("Space")
    assert [by[name] for name in names(page)] == sorted(by.values(), reverse=True)
    assert page.evaluate("document.activeElement.textContent") == "MACs"  # sorting keeps the focus


def test_the_filter_works_from_the_keyboard(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    page.get_by_label("Filter").focus()
    page.keyboard.type("doubled")
    page.keyboard.press("Enter")  # sends no form
    assert names(page) == ["doubled"]
    page.keyboard.press("Tab")
    page.keyboard.type("kept")
    assert page.locator("form.filter output").inner_text() == "0 of 5 sites"
