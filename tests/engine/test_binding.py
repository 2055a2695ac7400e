"""Rules bound to rewrites."""

from __future__ import annotations

import pytest

from spdify.engine import bind, make_rewrite
from spdify.errors import RulebookError
from spdify.rewrites import (
    ReplaceAveragePool,
    ReplaceBlurPool,
    ReplaceMaxPool,
    ReplaceStridedConv,
    ReplaceSubsamplingSlice,
)
from spdify.rulebook import list_rulebooks, load_rulebook, parse_rulebook, with_overrides


def test_the_default_rulebook_binds() -> None:
    rewrites = bind(load_rulebook("spd"))
    assert {name: type(rewrite) for name, rewrite in rewrites.items()} == {
        "strided-conv": ReplaceStridedConv,
        "average-pool": ReplaceAveragePool,
        "blur-pool": ReplaceBlurPool,
        "max-pool": ReplaceMaxPool,
        "subsampling-slice": ReplaceSubsamplingSlice,
    }


@pytest.mark.parametrize("name", list_rulebooks())
def test_every_rulebook_binds(name: str) -> None:
    book = load_rulebook(name)
    assert set(bind(book)) == {rule.name for rule in book.rules if not rule.keeps}


def test_params_reach_the_rewrite() -> None:
    rulebook = with_overrides(load_rulebook("spd"), ["strided-conv.kernel=odd", "max-pool.form=keep"])
    rewrites = bind(rulebook)
    assert rewrites["strided-conv"].params.kernel == "odd"
    assert rewrites["strided-conv"].params.pointwise == "separable"
    assert rewrites["max-pool"].params.form == "keep"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("replace-strided-convs", {}, "Did you mean replace-strided-conv?"),
        ("blur", {}, "Known: .*fold-pool, "),
        ("keep", {}, "there is none of that name"),
        (
            "replace-strided-conv",
            {"kernle": "odd"},
            r"params.kernle: expected one of its parameters \(kernel, pointwise",
        ),
        ("replace-strided-conv", {"kernel": "even"}, "params.kernel: expected Input should be 'minimal' or 'odd', got"),
        ("remove-pool", {"form": "conv"}, r"expected one of its parameters \(none\), got 'conv'"),
        ("replace-stem", {"kernel": 2}, "params.kernel: expected an odd number of taps, for a centred window, got 2"),
        ("replace-max-pool", {"form": True}, "params.form"),
    ],
)
def test_what_cannot_be_bound(name: str, params: dict[str, str | bool], message: str) -> None:
    with pytest.raises(RulebookError, match=message) as error:
        make_rewrite(name, params, where="rulebook mine, rule first")
    assert "rulebook mine, rule first" in str(error.value)


def test_the_message_names_rulebook_and_rule() -> None:
    text = b"""
        schema = 1
        summary = "Mine."
        [[rule]]
        name = "first"
        rewrite = "replace-everything"
        match = {}
    """
    with pytest.raises(RulebookError, match="rulebook mine, rule first"):
        bind(parse_rulebook(text, name="mine", file="mine.toml"))
