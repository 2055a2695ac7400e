"""axe-core finds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.looking import unfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"runOnly": TAGS, "resultTypes": ["violations"]}


def assert_nothing_is_found(visit: Callable[..., Visit], bundle: Bundle, **options: Any) -> None:  # noqa: ANN401
    from axe_playwright_python.sync_playwright import Axe

    page = visit(bundle.page, **options).page
    unfold(page)
    found = Axe().run(page, options=OPTIONS)
    assert len(found.response["passes"]) > 20  # it has looked
    assert found.violations_count == 0, found.generate_report()


def test_axe_finds_nothing(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    assert_nothing_is_found(visit, bundle)


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"width": 400}, {"width": 400, "color_scheme": "dark"}])
def test_nor_does_it_in_the_dark_or_on_a_phone(
    small: Bundle, visit: Callable[..., Visit], options: dict[str, Any]
) -> None:
    assert_nothing_is_found(visit, small, **options)  # axe is slow, and it has all kinds of parts


def test_axe_finds_what_is_wrong(small: Bundle, visit: Callable[..., Visit]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(small.page).page
    page.evaluate("document.querySelector('#answer').style.color = '#ddd'")
    found = Axe().run(page, options=OPTIONS)
    assert [one["id"] for one in found.response["violations"]] == ["color-contrast"]
