from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from spdify.reporting.documents import document_page, sort_key
from spdify.reporting.pictures import bars

HOSTILE = "</script><img src=x onerror=alert(1)>"
PICTURE = bars("A <title>", "What it shows", {"one": (3, "exact")})
TEXT = r"""
# Page of `x`

- **12 of 48 (25.0 %)** lines

## First & <b>only</b>

| name | size | note |
| --- | ---: | --- |
| `b` | 25.56 M | a \| b |
| a | 1,472 | 4\*u |
| c |  | none |

![the bars](x.svg)

| key | n |
| --- | --- |
| one | 10 |
| two | 9 |

## First & <b>only</b>

[a file](other.md)
""".lstrip()


@dataclass
class Seen(HTMLParser):
    """What a page holds: tags with their attributes, and the cells of its tables."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"th", "td"}:
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def seen(page: str) -> Seen:
    found = Seen()
    found.feed(page)
    return found


def test_tables_hold_the_cells_of_the_text() -> None:
    page = seen(document_page("title", TEXT, {"x.svg": PICTURE}))
    first = [["name", "size", "note"], ["b", "25.56 M", "a | b"], ["a", "1,472", "4*u"], ["c", "", "none"]]
    assert page.tables == [first, [["key", "n"], ["one", "10"], ["two", "9"]]]
    boxes = [attrs["aria-label"] for attrs in page.all("div") if attrs.get("class") == "scroll"]
    assert boxes == ["First & <b>only</b>: table", "the bars", "First & <b>only</b>: table 2"]
    assert all(attrs["tabindex"] == "0" for attrs in page.all("div") if attrs.get("class") == "scroll")


def test_columns_of_numbers_have_keys() -> None:
    page = document_page("title", TEXT, {"x.svg": PICTURE})
    cells = [attrs.get("data-sort") for name, attrs in seen(page).tags if name in {"td", "th"}]
    assert cells == [None] * 4 + ["25560000", None, None, "1472", None, None, "-Infinity", None] + [None] * 3 + [
        "10", None, "9",
    ]  # fmt: skip
    scopes = [attrs["scope"] for attrs in seen(page).all("th")]
    assert scopes.count("col") == page.count('<button type="button">') == 5
    assert scopes.count("row") == 5
    assert 'style="text-align:right"' in page
    empty = document_page("title", "|  | n |\n| --- | --- |\n| a | 1 |\n")
    assert empty.count('<button type="button">') == 1  # a button without a name could not be read out
    assert empty.count('scope="col"') == 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("12.3", 12.3), ("+1.2%", 1.2), ("-28.0%", -28), ("−3", -3), ("±0%", 0), ("25.56 M", 25.56e6), ("1,472", 1472),
        ("12 of 48 (25.0 %)", 12), ("69.64 ± 1.29", 69.64), ("7.8e-15", 7.8e-15), ("1.5 GiB", 1.5 * 2**30),
        ("3 k → 4 k", 3000), ("1.2 MB", 1.2e6), ("", None), ("3x3", None), ("new", None), ("9.0 GMACs: so", None),
        ("1.0.31", None), ("4 models", None),
    ],
)  # fmt: skip
def test_sort_keys(text: str, key: float | None) -> None:
    assert sort_key(text) == (None if key is None else pytest.approx(key))


def test_headings_have_names_and_the_sections_are_listed() -> None:
    page = document_page("title", TEXT, {"x.svg": PICTURE})
    assert "<h1>Page of <code>x</code></h1>" in page
    assert page.count("<h1>") == 1
    links = re.findall(r'<li><a href="#(.*?)">(.*?)</a></li>', page)
    assert links == [(f"first-b-only-b{more}", "First &amp; &lt;b&gt;only&lt;/b&gt;") for more in ("", "-2")]
    ids = [attrs["id"] for _, attrs in seen(page).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {name for name, _ in links} <= set(ids)
    assert "<h1>only a title</h1>" in document_page("only a title", "words\n")


def test_pictures_are_in_the_page_and_nothing_is_loaded() -> None:
    text = f"{TEXT}\n![again](y.svg) in words\n"
    page = seen(document_page("title", text, {"x.svg": PICTURE, "y.svg": PICTURE}))
    assert len(page.all("svg")) == 2
    assert not page.all("img")
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "srcset" in attrs or "xlink:href" in attrs]
    loaded = [attrs for name, attrs in page.tags if name in {"link", "image", "use", "iframe", "object", "embed"}]
    assert loaded == []
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert str(policy).startswith("default-src 'none'")


def test_nothing_leads_out_of_the_page() -> None:
    links = ("[a](http://x.example)", "<http://x.example>", "[b]", "[c][b]", "![d][b]", "[a file](other.md)")
    page = document_page("title", "\n\n".join([*links, "[b]: http://x.example"]))
    assert [attrs for attrs in seen(page).all("a") if not str(attrs["href"]).startswith("#")] == []
    assert all(f"<p>{link.replace('<', '&lt;').replace('>', '&gt;')}</p>" in page for link in links)


@pytest.mark.parametrize("name", ["y.svg", "https://example.com/x.svg", "data:image/png;base64,AAAA"])
def test_a_picture_that_is_not_given_is_an_error(name: str) -> None:
    with pytest.raises(LookupError, match=r"cannot make a page that loads the picture .*x\.svg"):
        document_page("title", f"![a]({name})\n", {"x.svg": PICTURE})


def test_hostile_words_stay_words() -> None:
    cells = (
        f"# {HOSTILE}\n\n{HOSTILE}\n\n## {HOSTILE}\n\n| {HOSTILE} | `{HOSTILE}` |\n| --- | --- |\n| {HOSTILE} | 1 |\n"
    )
    text = f'{cells}\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1))\n\n![{HOSTILE}" onfocus="x](x.svg)\n'
    page = seen(document_page(HOSTILE, text, {"x.svg": PICTURE}))
    assert not page.all("img")
    assert len(page.all("script")) == 1
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert not [attrs for attrs in page.all("a") if str(attrs["href"]).startswith("javascript")]
    assert page.tables == [[[HOSTILE, HOSTILE], [HOSTILE, "1"]]]
