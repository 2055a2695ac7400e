from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spdify.rulebook import rules_folder
from spdify.rulebook.form import GROUPS

if TYPE_CHECKING:
    from tests.cli.conftest import Spdify

HEAD = 'schema = 1\nsummary = "[bold]Mine[/] and [nobody]\'s."\n'
RULE = '[[rule]]\nname = "pools"\nrewrite = "replace-max-pool"\nmatch = { path = "[abc]*" }\n'


def test_list(spdify: Spdify) -> None:
    assert "spd" in spdify("rules", "list").stdout
    books = json.loads(spdify("rules", "list", "--json").stdout)
    assert {"name", "group", "summary", "source", "rules"} <= books[0].keys()
    groups = list(dict.fromkeys(book["group"] for book in books))
    assert groups == [group for group in GROUPS if group in groups], "in the order of the groups"
    assert {file.stem for file in rules_folder().glob("*.toml")} == {book["name"] for book in books}


def test_the_readme_has_the_table(spdify: Spdify) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert spdify("rules", "list", "--markdown").stdout in text, "run `spdify rules list --markdown`"


def test_show_gives_every_parameter(spdify: Spdify) -> None:
    text = spdify("rules", "show", "spd").stdout
    assert "kernel=minimal, pointwise=separable" in text
    assert json.loads(spdify("rules", "show", "spd", "--json").stdout)["rules"][0]["name"] == "strided-conv"


def test_show_takes_nothing_for_markup(spdify: Spdify) -> None:
    Path("mine.toml").write_text(HEAD + RULE, encoding="utf-8")
    text = spdify("rules", "show", "mine.toml").stdout
    assert "[bold]Mine[/] and [nobody]'s." in text
    assert "path=[abc]*" in text
    assert "form=tournament" in text


def test_check(spdify: Spdify) -> None:
    Path("mine.toml").write_text(HEAD + RULE, encoding="utf-8")
    assert spdify("rules", "check", "mine.toml").stdout == "mine.toml: 1 rules, sound\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema = 1\nsummary = ", ["broken.toml", "line 2"]),
        (HEAD + RULE.replace("max-pool", "max-pol"), ["replace-max-pol", "Did you mean replace-max-pool?"]),
        (HEAD + RULE + "[rule.params]\nform = 'circle'\n", ["params.form", "tournament", "circle"]),
        (HEAD + RULE + "[rule.params]\nfrom = 'conv'\n", ["params.from", "form"]),
        (HEAD + RULE.replace("match", "macth"), ["rule[0].macth", "match"]),
    ],
    ids=["syntax", "rewrite", "value", "parameter", "key"],
)
@pytest.mark.parametrize("command", ["check", "convert"])
def test_broken_rulebook(spdify: Spdify, folder: Path, command: str, text: str, told: list[str]) -> None:
    Path("broken.toml").write_text(text, encoding="utf-8")
    before = sorted(folder.iterdir())
    args = ["rules", "check"] if command == "check" else ["convert", "net.py:build", "--input-size", "3,16,16", "-r"]
    result = spdify(*args, "broken.toml", code=1)
    assert all(words in result.stderr for words in ["cannot ", *told])
    assert sorted(p for p in folder.iterdir() if p.name != "__pycache__") == before


def test_unknown_rulebook(spdify: Spdify) -> None:
    assert "cannot find rulebook 'nonsense'" in spdify("rules", "show", "nonsense", code=1).stderr
