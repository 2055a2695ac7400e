"""What several tests of pages do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def unfold(page: Page) -> None:
    """Open all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")


def unseen(page: Page, selector: str) -> list[str]:
    """Give the beginnings of those elements that take part in nothing that is seen."""
    return page.eval_on_selector_all(
        selector,
        """elements => elements
            .filter(element => !element.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true}))
            .map(element => element.outerHTML.slice(0, 100))""",
    )
