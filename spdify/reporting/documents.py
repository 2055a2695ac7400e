"""Our Markdown as a page: one file, its pictures in it, its tables sorted by a click."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from spdify.reporting.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


PREFIXES = {
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
NUMBER = r"[+\-−±≥≤]?\s?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
UNIT = r"\s?(?P<prefix>[KMGT]i|[kMGT])?(?:B|%)?"
MORE = rf"(?:\s(?:of|±|→)\s{NUMBER}\s?(?:[KMGT]i|[kMGT])?B?%?)*(?:\s\([^()]*\))?"
CELL = re.compile(rf"(?P<number>{NUMBER}){UNIT}{MORE}")
LEAST = "-Infinity"  # key of a cell without a number, in a column of numbers
SENTENCE = 60  # characters of a cell that needs room


@dataclass(frozen=True)
class Part:
    """A section of a document; the first may have no title."""

    id: str
    title: str
    body: Markup


@dataclass
class _Cell:
    """A cell of a table: what opens it, what is in it, what closes it."""

    opened: Token
    inline: Token
    closed: Token

    @property
    def text(self) -> str:
        return _text(self.inline)

    def become(self, tag: str, **attrs: str) -> None:
        self.opened.tag = self.closed.tag = tag
        self.opened.attrs |= attrs


def document_page(title: str, markdown: str, pictures: Mapping[str, str] | None = None) -> str:
    """Turn one of our Markdown pages into a page that loads nothing.

    Args:
        title: Of the window; also the heading where the text does not begin with one.
        markdown: CommonMark with tables; HTML and links in it, of which our pages have none, are shown as text.
        pictures: SVG by file name, put where the text shows that file; trusted.

    Raises:
        LookupError: The text shows a picture that is not given.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "reference"])
    tokens = reader.parse(markdown)
    _name_headings(tokens)
    _put_pictures(tokens, pictures or {})
    tokens = _set_tables(tokens)
    heading: str | Markup = title
    if tokens and tokens[0].tag == "h1":
        heading = _rendered(reader, tokens[1:2])
        tokens = tokens[3:]
    parts = []
    for own in _sections(tokens):
        titled = own[0].tag == "h2"
        name, words = (str(own[0].attrs["id"]), _text(own[1])) if titled else ("", "")
        parts.append(Part(name, words, _rendered(reader, own)))
    return render("document.html", {"title": title, "heading": heading, "parts": parts})


def sort_key(text: str) -> float | None:
    """Give the first number of a cell that looks like one: 25560000 of "25.56 M", 12 of "12 of 48 (25.0 %)"."""
    found = CELL.fullmatch(text.strip())
    if found is None:
        return None
    digits = found["number"].translate({ord("−"): "-", **dict.fromkeys(map(ord, "±≥≤, "), "")})
    return float(digits) * PREFIXES[found["prefix"] or ""]


def _rendered(reader: MarkdownIt, tokens: Sequence[Token]) -> Markup:
    return Markup(reader.renderer.render(tokens, reader.options, {}))  # noqa: S704 - the text's own HTML is escaped


def _raw(html: str) -> Token:
    """Give HTML of our own; the text itself can have no such token."""
    return Token("html_inline", "", 0, content=html)


def _box(label: str) -> str:
    """Open a box that scrolls, if need be by keys."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'


def _text(inline: Token) -> str:
    """Give the words of a heading or a cell, without their marks."""
    shown = (child for child in inline.children or () if child.type != "html_inline")
    return "".join(" " if child.type == "softbreak" else child.content for child in shown)


def _sections(tokens: Sequence[Token]) -> list[list[Token]]:
    """Part the tokens before each heading of the second level."""
    found: list[list[Token]] = [[]]
    for token in tokens:
        if token.type == "heading_open" and token.tag == "h2" and token.level == 0:
            found.append([])
        found[-1].append(token)
    return [part for part in found if part]


def _name_headings(tokens: Sequence[Token]) -> None:
    seen = {"content"}  # the page's own
    for opened, inline in pairwise(tokens):
        if opened.type == "heading_open":
            name = re.sub(r"[^a-z0-9]+", "-", _text(inline).lower()).strip("-") or "section"
            chosen = next(one for i in count(1) if (one := name if i == 1 else f"{name}-{i}") not in seen)
            seen.add(chosen)
            opened.attrSet("id", chosen)


def _put_pictures(tokens: Sequence[Token], pictures: Mapping[str, str]) -> None:
    """Put the pictures themselves where they are named; those in paragraphs of their own get boxes instead of these."""
    for opened, inline, closed in zip(tokens, tokens[1:], tokens[2:], strict=False):
        children = inline.children or []
        kinds = {child.type for child in children}
        alone = opened.type == "paragraph_open" and kinds <= {"image", "softbreak"}
        if "image" not in kinds:
            continue
        if alone:
            opened.hidden = closed.hidden = True
        inline.children = [
            _raw(_picture(child, pictures, boxed=alone)) if child.type == "image" else child for child in children
        ]


def _picture(image: Token, pictures: Mapping[str, str], *, boxed: bool) -> str:
    name = str(image.attrs["src"])
    if name not in pictures:
        given = ", ".join(pictures) or "none"
        raise LookupError(f"cannot make a page that loads the picture {name}: it is not among those given ({given})")
    drawn = pictures[name].strip()
    return f"{_box(image.content or name)}{drawn}</div>" if boxed else drawn


def _set_tables(tokens: Sequence[Token]) -> list[Token]:
    """Put tables into boxes, with what they are sorted by."""
    found: list[Token] = []
    rows: list[list[_Cell]] = []
    labels: Counter[str] = Counter()
    heading = "Table"
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = _text(tokens[place + 1])
        elif token.type == "table_open":
            labels[heading] += 1
            number = f" {labels[heading]}" if labels[heading] > 1 else ""
            found.append(_raw(_box(f"{heading}: table{number}")))  # the section has the heading's own name
            token.attrSet("class", "sortable wide")
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in {"th_open", "td_open"}:
            rows[-1].append(_Cell(token, tokens[place + 1], tokens[place + 2]))
        found.append(token)
        if token.type == "table_close":
            found.append(_raw("</div>\n"))
            _set_cells(*rows)
    return found


def _set_cells(heads: Sequence[_Cell], *rows: Sequence[_Cell]) -> None:
    for row in rows:
        row[0].become("th", scope="row")
    for place, (head, *cells) in enumerate(zip(heads, *rows, strict=True)):
        if head.text:
            head.become("th", scope="col")
            head.inline.children = [_raw('<button type="button">'), *(head.inline.children or ()), _raw("</button>")]
        else:
            head.become("td")  # a head without words is none
        _set_keys(head, cells, numbers_right=place > 0)


def _set_keys(head: _Cell, cells: Sequence[_Cell], *, numbers_right: bool) -> None:
    """Have a column sorted by numbers where it holds nothing else, or is set like numbers."""
    keys = [sort_key(cell.text) for cell in cells if cell.text]
    right = "text-align:right" in str(head.opened.attrs.get("style", ""))
    if right or (keys and None not in keys):
        for cell in cells:
            key = sort_key(cell.text)
            cell.opened.attrSet("data-sort", LEAST if key is None else f"{key:.15g}")
        for cell in (head, *cells) if right or numbers_right else ():
            cell.opened.attrSet("class", "number")
    for cell in cells:
        if len(cell.text) > SENTENCE:
            cell.opened.attrSet("class", "words")
