"""The choice is a function of costs and order, and no limit is ever exceeded."""

from __future__ import annotations

import random
from typing import Any

import pytest

from spdify.budgeting.choosing import Purchase, choose, in_order, with_purchases
from spdify.errors import UsageError
from spdify.records import Limit, Quantity, SiteForm, SiteOptions

KINDS: tuple[Quantity, ...] = ("macs", "params")


def site(name: str, size: int, standard: str = "", **costs: Any) -> SiteOptions:  # noqa: ANN401 - one cost or two
    forms = []
    for form, cost in costs.items():
        both = cost if isinstance(cost, tuple) else (cost, 0)
        forms.append(SiteForm(name=form, cost=dict(zip(KINDS, both, strict=True))))
    return SiteOptions(
        site=name, size=(size, size), rewrite="r", forms=tuple(forms), standard=standard or forms[0].name
    )


def limits(macs: float = 10**9, params: float = 10**9) -> list[Limit]:
    pairs = zip(KINDS, (macs, params), strict=True)
    return [Limit(text=kind, quantity=kind, original=1000, allowed=allowed) for kind, allowed in pairs]


def bought(sites: list[SiteOptions], **allowed: float) -> dict[str, str]:
    return {s.site: s.chosen for s in with_purchases(sites, choose(sites, limits(**allowed)))}


SITES = [
    site("a", 64, minimal=10, odd=30),
    site("b", 32, separable=1, grouped=4, dense=50),
    site("c", 32, tournament=8),
    site("d", 16, minimal=10, odd=30),
]


@pytest.mark.parametrize(
    ("macs", "found"),
    [
        (-1, "keep keep keep keep"),
        (0, "keep keep keep keep"),
        (1, "keep separable keep keep"),
        (9, "keep separable tournament keep"),
        (10, "minimal keep keep keep"),
        (11, "minimal separable keep keep"),
        (14, "minimal grouped keep keep"),
        (19, "minimal separable tournament keep"),
        (28, "minimal grouped tournament keep"),
        (29, "minimal separable tournament minimal"),
        (49, "odd separable tournament minimal"),
        (52, "odd grouped tournament minimal"),
        (98, "odd dense tournament minimal"),
        (118, "odd dense tournament odd"),
    ],
)
def test_first_all_in_their_standard_form_then_richer(macs: int, found: str) -> None:
    assert list(bought(SITES, macs=macs).values()) == found.split()


def test_a_site_that_does_not_fit_leaves_its_money_to_the_next() -> None:
    assert bought([site("dear", 64, minimal=100), site("cheap", 8, minimal=5)], macs=20) == {
        "dear": "keep",
        "cheap": "minimal",
    }


def test_a_plainer_form_where_the_standard_one_does_not_fit() -> None:
    sites = [site("a", 64, "dense", separable=1, grouped=4, dense=50)]
    assert bought(sites, macs=49) == {"a": "grouped"}
    assert bought(sites, macs=3) == {"a": "separable"}
    assert bought(sites, macs=50) == {"a": "dense"}


def test_all_limits_hold() -> None:
    sites = [site("a", 64, minimal=(1, 100)), site("b", 32, minimal=(100, 1)), site("c", 16, minimal=(1, 1))]
    assert bought(sites, macs=50, params=50) == {"a": "keep", "b": "keep", "c": "minimal"}
    assert bought(sites, macs=50, params=101) == {"a": "minimal", "b": "keep", "c": "minimal"}


def test_what_costs_nothing_is_bought_with_nothing() -> None:
    assert bought([site("patch", 64, minimal=0, odd=9)], macs=0, params=0) == {"patch": "minimal"}


def test_what_is_saved_may_be_spent() -> None:
    assert bought([site("a", 64, minimal=-5), site("b", 32, minimal=4)], macs=0) == {"a": "minimal", "b": "minimal"}


def test_every_prefix_of_the_purchases_keeps_to_the_limits() -> None:
    draw = random.Random(0)  # noqa: S311 - no secret
    for _ in range(200):
        sites = []
        for i in range(draw.randint(1, 8)):
            pairs = [sorted(draw.randint(0, 100) for _ in range(3)) for _ in KINDS]
            costs = {f"f{k}": (pairs[0][k], pairs[1][k]) for k in range(draw.randint(1, 3))}
            sites.append(site(f"s{i}", draw.choice([8, 16, 32]), draw.choice(list(costs)), **costs))
        allowed = limits(draw.randint(0, 300), draw.randint(0, 300))
        log = choose(sites, allowed)
        assert choose(sites, allowed) == log
        for kept in range(len(log) + 1):
            state = with_purchases(sites, log[:kept])
            for limit in allowed:
                assert sum(s.cost(s.chosen, limit.quantity) for s in state) <= limit.allowed
        final = with_purchases(sites, log)
        spent = {x.quantity: sum(s.cost(s.chosen, x.quantity) for s in final) for x in allowed}
        for kept_site in (s for s in final if s.chosen == "keep"):  # nothing that would have fitted was left out
            for form in kept_site.forms:
                assert any(spent[x.quantity] + form.cost[x.quantity] > x.allowed for x in allowed)


def test_purchases_are_in_order() -> None:
    assert choose(SITES[:2], limits(macs=34)) == [
        Purchase("a", "keep", "minimal"),
        Purchase("b", "keep", "separable"),
        Purchase("a", "minimal", "odd"),
        Purchase("b", "separable", "grouped"),
    ]


@pytest.mark.parametrize(
    ("prefer", "order"),
    [
        ("resolution", "first big small again"),
        ("last", "again small big first"),
        ("cheapest", "small again big first"),
        ("small", "small first big again"),
        ("*a*", "small again first big"),
        ("f*", "first big small again"),
    ],
)
def test_orders(prefer: str, order: str) -> None:
    sites = [
        site("first", 64, minimal=9),
        site("big", 64, minimal=7),
        site("small", 16, minimal=1),
        site("again", 16, minimal=2),
    ]
    assert [s.site for s in in_order(sites, prefer, limits())] == order.split()


def test_the_cheapest_by_the_limit_that_is_nearest() -> None:
    sites = [site("a", 8, minimal=(10, 1)), site("b", 8, minimal=(1, 10))]
    assert [s.site for s in in_order(sites, "cheapest", limits(macs=1000, params=20))] == ["a", "b"]
    assert [s.site for s in in_order(sites, "cheapest", limits(macs=20, params=1000))] == ["b", "a"]
    assert [s.site for s in in_order(sites, "cheapest", limits(macs=0, params=0))] == ["a", "b"]


def test_a_pattern_fits_the_path_of_functional_calls() -> None:
    sites = [site("a", 64, minimal=1), site("stem#forward:max_pool2d:0", 8, tournament=1)]
    assert in_order(sites, "stem", limits())[0].size == (8, 8)


def test_an_order_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="cannot prefer 'cheapst'") as fault:
        in_order(SITES, "cheapst", limits())
    assert "cheapest" in fault.value.hint
    assert "a, b, c, d" in fault.value.hint
