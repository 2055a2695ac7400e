"""axe-core finds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.looking import unfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_axe_finds_nothing(bundle: Bundle, visit: Callable[..., Visit], scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(bundle.page, color_scheme=scheme, width=width).page
    unfold(page)
    found = Axe().run(page, options={"runOnly": TAGS, "resultTypes": ["violations"]})
    assert len(found.response["passes"]) > 20  # it has looked
    assert found.violations_count == 0, found.generate_report()


def test_axe_finds_what_is_wrong(small: Bundle, visit: Callable[..., Visit]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(small.page).page
    page.evaluate("document.querySelector('#answer').style.color = '#ddd'")
    found = Axe().run(page, options={"runOnly": TAGS, "resultTypes": ["violations"]})
    assert [one["id"] for one in found.response["violations"]] == ["color-contrast"]
