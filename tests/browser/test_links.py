"""Links within a page lead somewhere that is then seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

#: Where links are: the contents, proofs, blocks, what is read, sites, kernels.
STARTS = ("nav", "#site-errors", ".stage", "[aria-labelledby=reads]", "#site-table", "[aria-labelledby=kernels]")


def assert_in_view(page: Page, where: str) -> None:
    seen = page.evaluate(
        """where => {
            const target = document.getElementById(where), box = target.getBoundingClientRect();
            const folds = Array.from(document.querySelectorAll("details")).filter(fold => fold.contains(target));
            const visible = target.checkVisibility({contentVisibilityAuto: true});
            return [visible, box.top, box.height, folds.every(fold => fold.open)];
        }""",
        where,
    )
    visible, top, height, unfolded = seen
    assert visible
    assert unfolded
    assert height > 0
    assert -1 <= top < 900


def test_each_link_has_a_target_and_no_name_comes_twice(opened: Page) -> None:
    links = opened.eval_on_selector_all("a[href]", "links => links.map(link => link.getAttribute('href'))")
    ids = opened.eval_on_selector_all("[id]", "elements => elements.map(element => element.id)")
    assert len(links) > 10
    assert {link[0] for link in links} == {"#"}  # nothing leads away
    assert {link[1:] for link in links} <= set(ids)
    assert len(ids) == len(set(ids))
    labels = opened.eval_on_selector_all(
        "[aria-labelledby]", "all => all.flatMap(one => one.getAttribute('aria-labelledby').split(' '))"
    )
    assert set(labels) <= set(ids)


def test_the_contents_name_each_section(opened: Page) -> None:
    heads = opened.eval_on_selector_all("main h2", "heads => heads.map(head => '#' + head.id)")
    links = opened.eval_on_selector_all("nav a", "links => links.map(link => link.getAttribute('href'))")
    assert links == heads


@pytest.mark.parametrize("start", STARTS)
def test_links_scroll_to_what_they_name(bundle: Bundle, visit: Callable[..., Visit], start: str) -> None:
    page = visit(bundle.page).page
    links = page.locator(f"{start} a[href^='#']")
    count = links.count()
    assert count
    for index in {0, count - 1}:
        link = links.nth(index)
        where = link.get_attribute("href")[1:]
        link.evaluate("""link => {
            for (const fold of document.querySelectorAll("details")) fold.open = fold.contains(link);
        }""")
        link.click()
        assert_in_view(page, where)


def test_a_second_click_opens_again(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    link = page.locator("#site-table a[href^='#kernel']").last
    where = link.get_attribute("href")[1:]
    for _ in range(2):
        page.evaluate("document.querySelectorAll('details').forEach(fold => (fold.open = false))")
        link.click()
        assert_in_view(page, where)


def test_a_page_opens_at_a_folded_kernel(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    last = visit(resnet50.page).page.locator("details[id^=kernel]").last.get_attribute("id")
    page = visit(resnet50.page, hash=f"#{last}").page
    page.wait_for_function("scrollY > 0")
    assert_in_view(page, last)


def test_a_link_to_a_row_that_is_filtered_out_shows_it_again(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    page.get_by_label("Filter").fill("doubled")
    link = page.locator(".stage a[href='#site-0']")
    link.click()
    assert_in_view(page, "site-0")
    assert page.locator("form.filter output").inner_text() == "5 of 5 sites"
    assert page.get_by_label("Filter").input_value() == ""


def test_the_skip_link_shows_itself_and_skips(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page).page
    page.keyboard.press("Tab")
    box = page.locator("a.skip").bounding_box()
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('content').contains(document.activeElement)")
