"""Several rulebooks as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spdify.errors import RulebookError
from spdify.rulebook import Rulebook, first_match, join_rulebooks, load_rulebook, load_rules, parse_rulebook, split_name
from tests.rulebook.test_matching import make_site

if TYPE_CHECKING:
    from pathlib import Path


def book(name: str, *rules: str, paper: str = "") -> Rulebook:
    tables = "".join(f'[[rule]]\nname = "{rule}"\nrewrite = "replace"\nmatch = {{}}\n' for rule in rules)
    text = f'schema = 1\nsummary = "Of {name}."\nsource.paper = "{paper}"\n{tables}'
    return parse_rulebook(text.encode(), name=name, file=f"{name}.toml")


def test_one_book_stays_as_it_is() -> None:
    assert join_rulebooks([load_rulebook("spd")]) == load_rulebook("spd") == load_rules("spd") == load_rules(["spd"])


def test_rules_stand_in_the_order_of_the_books_and_are_called_by_them() -> None:
    joined = join_rulebooks([book("b", "stem", "rest"), book("a", "stem")])
    assert (joined.name, joined.summary) == ("b+a", "Of b. Of a.")
    assert [rule.name for rule in joined.rules] == ["b/stem", "b/rest", "a/stem"]
    assert [split_name(rule.name) for rule in joined.rules] == [("b", "stem"), ("b", "rest"), ("a", "stem")]
    assert split_name("stem") == ("", "stem")


@pytest.mark.parametrize(("names", "first"), [(("a", "b"), "a/stem"), (("b", "a"), "b/stem")])
def test_the_first_book_decides(names: tuple[str, str], first: str) -> None:
    rule, others = first_match(join_rulebooks([book(n, "stem") for n in names]), make_site(), index=0, total=1)
    assert rule is not None
    assert (rule.name, others) == (first, (f"{names[1]}/stem",))


def test_sources_are_named_once_each() -> None:
    books = [book("a", "x", paper="arXiv:1"), book("b", "x"), book("c", "x", paper="arXiv:2")]
    assert str(join_rulebooks([*books, book("d", "x", paper="arXiv:1")]).source) == "arXiv:1; arXiv:2"


@pytest.mark.parametrize("order", [("a", "b", "a"), ("a", "a")])
def test_a_book_is_given_once(order: tuple[str, ...]) -> None:
    with pytest.raises(RulebookError, match="expected a name of its own for each, got 'a' more than once"):
        join_rulebooks([book(name, "stem") for name in order])


def test_two_files_with_one_name(tmp_path: Path) -> None:
    file = tmp_path / "spd.toml"
    file.write_text('schema = 1\nsummary = "s"\n[[rule]]\nname = "a"\nrewrite = "replace"\nmatch = {}\n')
    with pytest.raises(RulebookError, match="got 'spd' more than once") as caught:
        load_rules(("spd", str(file)))
    assert "rename one" in caught.value.hint


def test_none_at_all() -> None:
    with pytest.raises(RulebookError, match="expected at least one, got none"):
        load_rules(())


def test_no_file_may_use_a_qualified_name() -> None:
    with pytest.raises(RulebookError, match=r"rule\[0\].name: expected lower-case words"):
        book("a", "spd/stem")
