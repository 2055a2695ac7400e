"""A page asks for nothing, complains of nothing, and runs nothing but its own script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from spdify.records import Report
from spdify.reporting.pages import report_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.conftest import Bundle, Visit

pytestmark = pytest.mark.browser

HOSTILE = """</script></style></td><script>window.ran=1</script><img src=x onerror="alert(1)">'"&amp;{{7*7}}<!--"""
KEYS = {"path", "reason", "model", "rulebook", "type_name", "stage", "detail", "command", "site", "spec", "tensor"}
KEYS |= {"training", "name"}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(html: str) -> Path:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        return file

    return write


def hostile(value: Any, words: str) -> Any:  # noqa: ANN401 - any JSON
    """Add words to all texts that people or their networks choose."""
    if isinstance(value, dict):
        return {
            key: f"{one}{words}" if key in KEYS and isinstance(one, str) and one else hostile(one, words)
            for key, one in value.items()
        }
    return [hostile(one, words) for one in value] if isinstance(value, list) else value


def test_a_page_is_quiet_and_small(bundle: Bundle, visit: Callable[..., Visit]) -> None:
    page = visit(bundle.page).page  # `visit` sees what it asks for and says
    assert bundle.page.stat().st_size < 1_000_000
    assert page.locator("*").count() < 20_000
    assert page.title() == page.locator("#answer").inner_text()
    assert bundle.json["model"] in page.locator("h1").inner_text()


def test_what_a_page_says_of_itself_is_heard(visit: Callable[..., Visit], written: Callable[[str], Path]) -> None:
    seen = visit(written("<script>console.warn('one'); fetch('http://127.0.0.1:9/').catch(() => 0); two()</script>"))
    seen.forgive("console warning: one")
    seen.forgive("request: http://127.0.0.1:9/")
    seen.forgive("two is not defined")
    seen.forgive("console error")  # the request came to nothing


@pytest.mark.parametrize("policy", [True, False])
def test_no_other_script_runs_and_nothing_is_loaded(
    small: Bundle, visit: Callable[..., Visit], written: Callable[[str], Path], policy: bool
) -> None:
    added = (
        "<script>window.ran = 1</script><img src='x.png' onerror='window.failed = 1'><link rel=stylesheet href=y.css>"
    )
    html = small.page.read_text(encoding="utf-8").replace("<main", f"{added}<main")
    if not policy:  # the same page without: what is asserted below can fail
        begin = html.index("<meta http-equiv")
        html = html[:begin] + html[html.index(">", begin) + 1 :]
    seen = visit(written(html))
    seen.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.late = 1";
        document.body.append(script);
    }""")
    seen.forgive("x.png")  # tried, before the policy is asked or this network refuses
    seen.forgive("y.css")
    seen.forgive("Content Security Policy" if policy else "ERR_", least=3 if policy else 1)
    if not policy:
        seen.page.wait_for_function("window.failed")
    ran = seen.page.evaluate("[window.ran, window.late, window.failed].map(Boolean)")
    assert ran == [not policy] * 3


def test_hostile_texts_are_shown_as_texts(
    small: Bundle, visit: Callable[..., Visit], written: Callable[[str], Path]
) -> None:
    told = small.json
    report = Report.model_validate(hostile(told, HOSTILE))
    page = visit(written(report_page(report))).page
    shown = page.evaluate("document.body.textContent")
    assert shown.count(HOSTILE) > 30
    for words in (told["model"], told["decisions"][0]["site"]["path"], told["parts_before"][0]["path"]):
        assert f"{words}{HOSTILE}" in shown
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.evaluate("window.ran === undefined")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    honest = visit(written(report_page(small.report))).page
    names = "Array.from(document.querySelectorAll('*'), element => element.tagName).join(' ')"
    assert page.evaluate(names) == honest.evaluate(names)


@pytest.mark.parametrize("hash", ["#%", "#nothing-of-that-name", "#"])
def test_a_broken_fragment_does_no_harm(small: Bundle, visit: Callable[..., Visit], hash: str) -> None:  # noqa: A002
    assert visit(small.page, hash=hash).page.locator("form.filter output").inner_text() == "5 of 5 sites"
