"""`--set rule.param=value`."""

from __future__ import annotations

import pytest

from spdify.errors import RulebookError, UsageError
from spdify.rulebook import Rulebook, join_rulebooks, load_rulebook, overridden, parse_rulebook, with_overrides


@pytest.fixture
def book() -> Rulebook:
    return load_rulebook("spd")


def params(book: Rulebook, *items: str) -> dict[str, object]:
    return dict(with_overrides(book, items).rules[0].params)


def test_nothing_set_nothing_changed(book: Rulebook) -> None:
    assert with_overrides(book, []) == book


def test_one_parameter_is_set_and_the_rest_stays(book: Rulebook) -> None:
    before = book.model_copy(deep=True)
    changed = with_overrides(book, ["strided-conv.kernel=odd"])
    assert changed.rules[0].params == {"kernel": "odd", "pointwise": "separable", "standardisation": "keep"}
    assert changed.rules[1:] == book.rules[1:]
    assert (changed.name, changed.source) == (book.name, book.source)
    assert book == before


def test_several_items_and_the_later_one_holds(book: Rulebook) -> None:
    changed = with_overrides(book, ["max-pool.form=conv", "strided-conv.kernel=odd", "max-pool.form=keep"])
    assert changed.rules[0].params["kernel"] == "odd"
    assert changed.rules[2].params == {"form": "keep"}


def test_what_was_set_even_to_what_it_is(book: Rulebook) -> None:
    items = ["strided-conv.kernel=minimal", "spd/strided-conv.pointwise=dense", "max-pool.form=keep"]
    assert overridden(book, items) == {"strided-conv": {"kernel", "pointwise"}, "max-pool": {"form"}}
    assert overridden(book, "max-pool.form=keep") == {"max-pool": {"form"}}
    assert overridden(book, []) == {}
    joined = join_rulebooks([book, load_rulebook("spd-paper")])
    assert set(overridden(joined, ["max-pool.form=keep"])) == {"spd/max-pool", "spd-paper/max-pool"}
    with pytest.raises(RulebookError, match="max-pol"):
        overridden(book, ["max-pol.form=keep"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("true", True),
        ('"3"', "3"),
        ("'a b'", "a b"),
        ("''", ""),
        ("odd", "odd"),
        ("True", "True"),
        ("a=b", "a=b"),
        (" odd ", "odd"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_values(book: Rulebook, text: str, value: object) -> None:
    got = params(book, f"strided-conv.kernel={text}")["kernel"]
    assert got == value
    assert type(got) is type(value)


def test_a_parameter_may_have_a_dot_and_need_not_be_in_the_book(book: Rulebook) -> None:
    assert params(book, "strided-conv.a.b=1")["a.b"] == 1


@pytest.mark.parametrize(
    "item", ["", "strided-conv", "strided-conv.kernel", "strided-conv=odd", ".kernel=odd", "strided-conv.=1", "a.b="]
)
def test_the_form_is_checked(book: Rulebook, item: str) -> None:
    with pytest.raises(UsageError, match="expected rule, parameter and value") as caught:
        with_overrides(book, [item])
    assert "strided-conv.kernel=odd" in caught.value.hint


@pytest.mark.parametrize("value", ['"odd', "[1", "{a", "'x' y"])
def test_broken_toml_is_no_bare_word(book: Rulebook, value: str) -> None:
    with pytest.raises(UsageError, match="expected a TOML value"):
        with_overrides(book, [f"strided-conv.kernel={value}"])


@pytest.mark.parametrize("value", ["[1]", "{ a = 1 }", "2020-01-01", "nan"])
def test_a_value_is_plain(book: Rulebook, value: str) -> None:
    with pytest.raises(RulebookError, match=r"params.kernel: expected a string, an integer") as caught:
        with_overrides(book, [f"strided-conv.kernel={value}"])
    assert "'strided-conv'" in caught.value.message


def test_an_unknown_rule_gets_its_nearest_relative(book: Rulebook) -> None:
    with pytest.raises(RulebookError, match="expected a rule of rulebook 'spd', got 'strided-convs'") as caught:
        with_overrides(book, ["strided-convs.kernel=odd"])
    assert caught.value.hint == "Did you mean 'strided-conv'?"


def test_a_policy_has_no_parameters() -> None:
    text = """
    schema = 1
    summary = "Keep slices."
    [source]
    paper = "none"
    section = "1"
    [[rule]]
    name = "subsampling-slice"
    rewrite = "keep"
    reason = "they stay"
    match = { operator = "slice" }
    """
    book = parse_rulebook(text.encode(), name="keeping", file="keeping.toml")
    with pytest.raises(RulebookError, match="expected no `params`, since its rewrite is 'keep'"):
        with_overrides(book, ["subsampling-slice.kernel=odd"])


POOLS = """
schema = 1
summary = "Pools only."
[[rule]]
name = "max-pool"
rewrite = "replace-max-pool"
match = { operator = "max_pool" }
"""


@pytest.fixture
def joined(book: Rulebook) -> Rulebook:
    return join_rulebooks([parse_rulebook(POOLS.encode(), name="my.pools", file="my.pools.toml"), book])


def forms(book: Rulebook, *items: str) -> dict[str, object]:
    rules = with_overrides(book, items).rules
    return {rule.name: rule.params.get("form") for rule in rules if rule.name.endswith("max-pool")}


def test_a_rule_may_be_called_by_its_book(book: Rulebook, joined: Rulebook) -> None:
    assert forms(book, "spd/max-pool.form=keep") == {"max-pool": "keep"}
    assert forms(joined, "spd/max-pool.form=keep") == {"my.pools/max-pool": None, "spd/max-pool": "keep"}
    assert forms(joined, "my.pools/max-pool.form=a/b") == {"my.pools/max-pool": "a/b", "spd/max-pool": "tournament"}


def test_without_a_book_it_is_the_rule_in_each_that_has_it(joined: Rulebook) -> None:
    assert forms(joined, "max-pool.form=keep") == {"my.pools/max-pool": "keep", "spd/max-pool": "keep"}
    changed = with_overrides(joined, ["strided-conv.kernel=odd", "max-pool.form=keep", "spd/max-pool.form=conv"])
    assert changed.rules[1].params["kernel"] == "odd"
    assert [changed.rules[i].params["form"] for i in (0, 3)] == ["keep", "conv"]
    assert [rule.name for rule in changed.rules] == [rule.name for rule in joined.rules]


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ("max-pol.form=keep", "Did you mean 'max-pool'?"),
        ("sdp/max-pool.form=keep", "Did you mean 'spd/max-pool'"),
        ("my.pools/strided-conv.kernel=odd", "Did you mean "),
    ],
)
def test_an_unknown_rule_of_several_books(joined: Rulebook, item: str, hint: str) -> None:
    with pytest.raises(RulebookError, match=r"expected a rule of rulebook 'my.pools\+spd', got '") as caught:
        with_overrides(joined, [item])
    assert caught.value.hint.startswith(hint)


def test_another_book_than_the_one_that_was_chosen(book: Rulebook) -> None:
    with pytest.raises(RulebookError, match="expected a rule of rulebook 'spd', got 'other/max-pool'") as caught:
        with_overrides(book, ["other/max-pool.form=keep"])
    assert "'spd/max-pool'" in caught.value.hint


@pytest.mark.parametrize("item", ["spd/=1", "spd/max-pool=keep", "spd/.form=keep", "spd/max-pool.form="])
def test_the_form_with_a_book_is_checked(joined: Rulebook, item: str) -> None:
    with pytest.raises(UsageError, match="expected rule, parameter and value") as caught:
        with_overrides(joined, [item])
    assert "book/rule.param=value" in caught.value.hint
