"""Amounts are read strictly; those that are named as enough are enough."""

from __future__ import annotations

from fractions import Fraction

import pytest

from spdify.budgeting.amounts import enough, read_wishes
from spdify.errors import UsageError
from spdify.records import Limit


@pytest.mark.parametrize(
    ("text", "original", "allowed"),
    [
        ("macs=+15%", 4_089_184_256, 613_377_638),
        ("macs=+0%", 100, 0),
        ("macs=+33.3333%", 3, 0),
        ("macs=+0.5G", 7, 500_000_000),
        ("macs=4.5G", 4_089_184_256, 410_815_744),
        ("macs=3G", 4_000_000_000, -1_000_000_000),
        ("params=+1.2M", 1, 1_200_000),
        ("params=+7", 1, 7),
        ("params=2k", 1500, 500),
        ("macs=1T", 0, 10**12),
    ],
)
def test_counts(text: str, original: int, allowed: int) -> None:
    (wish,) = read_wishes(text)
    limit = wish.limit(original)
    assert (limit.text, limit.original, limit.allowed) == (text, original, allowed)
    assert isinstance(limit.allowed, int)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("latency=+10%", 0.02), ("latency=+3ms", 0.003), ("latency=0.25s", 0.05), ("latency=150ms", -0.05)],
)
def test_seconds(text: str, allowed: float) -> None:
    (wish,) = read_wishes((text,))
    assert wish.limit(0.2).allowed == pytest.approx(allowed)


def test_the_smallest_decimals_are_not_rounded_away() -> None:
    assert read_wishes("macs=+0.1%")[0].amount == Fraction(1, 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected QUANTITY=AMOUNT"),
        ("macs", "expected QUANTITY=AMOUNT"),
        ("macs=", "expected QUANTITY=AMOUNT"),
        ("macs=-5%", "expected QUANTITY=AMOUNT"),
        ("macs=+-5%", "expected QUANTITY=AMOUNT"),
        ("macs=+5 %", "expected QUANTITY=AMOUNT"),
        (" macs=+5%", "expected QUANTITY=AMOUNT"),
        ("macs=+5%\n", "expected QUANTITY=AMOUNT"),
        ("macs=+.5%", "expected QUANTITY=AMOUNT"),
        ("macs=+1e9", "expected QUANTITY=AMOUNT"),
        ("macs=+nan%", "expected QUANTITY=AMOUNT"),
        ("macs=+٣%", "expected QUANTITY=AMOUNT"),
        ("macs=+5%%", "expected a unit of %, k, M, G, T, got '%%'"),
        ("flops=+5%", "expected macs, params, latency, got 'flops'"),
        ("MACS=+5%", "expected QUANTITY=AMOUNT"),
        ("macs=15%", "has a + before it"),
        ("macs=+5g", "expected a unit of %, k, M, G, T, got 'g'"),
        ("params=+5T", "expected a unit of %, k, M, G, got 'T'"),
        ("latency=+5", "expected a unit of %, ms, s, got ''"),
        ("latency=+5M", "expected a unit of %, ms, s, got 'M'"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="cannot read the budget") as fault:
        read_wishes([text])
    assert message in fault.value.message
    assert fault.value.hint
    assert fault.value.exit_code == 2


def test_one_quantity_twice() -> None:
    with pytest.raises(UsageError, match="cannot keep to two budgets for macs"):
        read_wishes(["macs=+5%", "params=+1%", "macs=+1G"])


@pytest.mark.parametrize("original", [1, 7, 999, 25_557_032, 4_089_184_256, 10**14])
@pytest.mark.parametrize("cost", [1, 2, 3, 999, 1000, 12_345, 200_704, 89_915_392, 10**11 + 1])
def test_enough_is_enough_and_hardly_more(original: int, cost: int) -> None:
    limit = Limit(text="", quantity="macs", original=original, allowed=0)
    (wish,) = read_wishes(enough(limit, cost))
    assert cost <= wish.limit(original).allowed <= cost * 1.011 + 1


def test_enough_without_anything_to_compare_with() -> None:
    assert enough(Limit(text="", quantity="params", original=0, allowed=0), 12) == "params=+12"
    assert enough(Limit(text="", quantity="macs", original=9, allowed=-1), 0) == "macs=+0"
    assert enough(Limit(text="", quantity="latency", original=0.1, allowed=0), -0.1) == "latency=+0%"
    (wish,) = read_wishes(enough(Limit(text="", quantity="latency", original=0.1, allowed=0), 0.00123))
    assert 0.00123 <= float(wish.limit(0.1).allowed) < 0.00125
