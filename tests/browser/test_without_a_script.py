"""Without JavaScript a page says all that it says with it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser


class Heads(HTMLParser):
    """Collects the texts of a page's `h2` and counts rows, without a browser."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.rows = 0
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._inside = tag == "h2"
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "h2"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.heads.append(data)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_all_of_it_is_there(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    plain = visit(bundle.page, java_script_enabled=False).page
    usual = visit(bundle.page).page
    # `evaluate` runs where the page's own scripts do not.
    said = "Array.from(document.querySelectorAll('header, main > :not(form), footer'), e => e.textContent).join(' ')"
    usual.evaluate("document.querySelector('form.filter output').textContent = ''")
    assert words(plain.evaluate(said)) == words(usual.evaluate(said))
    raw = Heads(bundle.page.read_text(encoding="utf-8"))
    assert plain.locator("h2").all_text_contents() == raw.heads
    assert plain.locator("tr").count() == raw.rows > 20


def test_the_filter_is_hidden_and_heads_are_no_buttons(small: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(small.page, java_script_enabled=False).page
    assert not page.locator("form.filter").is_visible()
    assert page.locator("main button").count() == 0
    assert visit(small.page).page.locator("form.filter").is_visible()


@pytest.mark.parametrize("width", [1200, 400])
def test_folded_parts_open(small: Bundle, visit: Callable[..., Visit], width: int) -> None:
    page = visit(small.page, java_script_enabled=False, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for fold in page.locator("details").all():
        if fold.get_attribute("open") is None:
            fold.locator("summary").click()
        assert fold.locator(":scope > :not(summary)").first.is_visible()
