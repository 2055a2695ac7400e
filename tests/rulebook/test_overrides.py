"""`--set rule.param=value`."""

from __future__ import annotations

import pytest

from spdify.errors import RulebookError, UsageError
from spdify.rulebook import Rulebook, load_rulebook, parse_rulebook, with_overrides


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
