"""Dark and light, narrow and wide, on paper."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from spdify.reporting.pictures import THEME
from tests.browser.looking import unfold, unseen

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

A4 = (594.96, 841.92)  # points, as Chromium rounds them


def rgb(colour: str) -> str:
    """Give a colour (#rrggbb) as browsers say it."""
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


def style(page: Page, selector: str, name: str, pseudo: str | None = None) -> str:
    return page.eval_on_selector(
        selector, "(element, [name, pseudo]) => getComputedStyle(element, pseudo)[name]", [name, pseudo]
    )


@pytest.mark.parametrize(("scheme", "index"), [("light", 0), ("dark", 1)])
def test_colours_follow_the_system(small: Bundle, visit: Callable[..., Visit], scheme: str, index: int) -> None:
    page = visit(small.page, color_scheme=scheme).page
    assert style(page, "html", "backgroundColor") == rgb(THEME["ground"][index])
    assert style(page, "body", "color") == rgb(THEME["ink"][index])
    assert style(page, ".tile", "backgroundColor") == rgb(THEME["panel"][index])
    assert style(page, "nav a", "color") == rgb(THEME["link"][index])
    assert style(page, ".kernel .w", "fill") == rgb(THEME["good"][index])
    assert style(page, ".meter circle", "fill") == rgb(THEME["ink"][index])
    assert style(page, "[aria-labelledby=depth] svg text", "fill") == rgb(THEME["ink"][index])
    # The darker colour of a pair lies on the lighter page, and the other way round.
    low, high = style(page, "html", "backgroundColor"), style(page, "body", "color")
    assert (sum(map(int, re.findall(r"\d+", low))) > sum(map(int, re.findall(r"\d+", high)))) == (scheme == "light")


def test_pictures_have_no_colour_of_their_own(opened: Page) -> None:
    opened.emulate_media(color_scheme="dark")
    dark = {rgb(dark) for _, dark in THEME.values()}
    found = opened.evaluate("""() => {
        const found = new Set();
        for (const shape of document.querySelectorAll("svg *")) {
            const {fill, stroke} = getComputedStyle(shape);
            if (shape.hasAttribute("fill")) found.add(fill);
            if (shape.hasAttribute("stroke")) found.add(stroke);
        }
        return [...found];
    }""")
    assert len(found) > 3
    assert set(found) - {"none"} <= dark


@pytest.mark.parametrize("javascript", [True, False])
def test_paper_is_light_and_shows_what_is_folded(bundle: Bundle, visit: Callable[..., Visit], javascript: bool) -> None:
    page = visit(bundle.page, color_scheme="dark", java_script_enabled=javascript).page
    assert page.locator("details:not([open])").count()
    assert unseen(page, "details > :not(summary)")
    page.emulate_media(media="print")
    assert style(page, "html", "backgroundColor") == "rgb(255, 255, 255)"
    assert style(page, "body", "color") == rgb(THEME["ink"][0])
    assert style(page, ".kernel .w", "fill") == rgb(THEME["good"][0])
    assert unseen(page, "details > :not(summary)") == []
    for hidden in ("nav", "form.filter", "a.skip"):
        assert not page.locator(hidden).is_visible()
    assert page.locator("#site-table th").first.evaluate("head => getComputedStyle(head).display") == "table-cell"


def test_printing_gives_a4_and_folds_again(resnet50: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(resnet50.page).page
    folded = page.locator("details:not([open])").count()
    page.evaluate("""addEventListener("beforeprint", () => {
        window.folded = document.querySelectorAll("details:not([open])").length;
    })""")
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox ?\[([^\]]*)\]", pdf)
    assert 5 < len(boxes) < 20
    for box in boxes:
        assert tuple(map(float, box.split())) == pytest.approx((0, 0, *A4), abs=0.1)
    assert page.evaluate("window.folded") == 0
    assert page.locator("details:not([open])").count() == folded > 0


def test_paper_is_the_same_without_a_script(small: Bundle, visit: Callable[..., Visit]) -> None:
    pages = [
        visit(small.page, java_script_enabled=on).page.pdf(prefer_css_page_size=True).count(b"/MediaBox")
        for on in (True, False)
    ]
    assert pages[0] == pages[1]


def spilt(page: Page) -> list[str]:
    """Give what is wider than the cell that it stands in."""
    return page.eval_on_selector_all(
        "td, th, .tile, summary",
        """cells => cells.filter(cell => cell.clientWidth && cell.scrollWidth > cell.clientWidth + 1)
            .map(cell => cell.outerHTML.slice(0, 200))""",
    )


def test_no_width_scrolls_sideways_and_no_cell_spills(opened: Page) -> None:
    for width in (1200, 900, 780, 720, 400, 320):
        opened.set_viewport_size({"width": width, "height": 900})
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, width
        assert spilt(opened) == [], width


def test_paper_spills_no_cell(opened: Page) -> None:
    opened.set_viewport_size({"width": 688, "height": 900})  # A4 less its margins
    opened.emulate_media(media="print")
    assert spilt(opened) == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= 688


def test_a_narrow_page_names_what_stands_in_each_cell(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(bundle.page, width=400).page
    unfold(page)
    cells = page.eval_on_selector_all(
        ".cards tbody td, .cards tbody th",
        """cells => cells.filter(cell => getComputedStyle(cell).display !== "none").map(cell => ({
            label: cell.dataset.label ?? "", shown: getComputedStyle(cell, "::before").content,
            text: cell.textContent.trim(),
        }))""",
    )
    assert len(cells) > 50
    for cell in cells:
        assert cell["label"] or not cell["text"]  # a picture beside its number has none
        assert cell["shown"] == (f'"{cell["label"]}"')
    wide = visit(bundle.page).page
    assert style(wide, ".cards tbody td", "content", "::before") in {"none", "normal"}


def test_a_narrow_page_keeps_its_heads_to_sort_by(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page, width=400).page
    for button in page.locator("#site-table thead button").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
