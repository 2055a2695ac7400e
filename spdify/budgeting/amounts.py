"""Amounts of a budget: `macs=+15%`, `params=+1.2M`, `latency=40ms`; read strictly, and written so that they suffice."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, cast

from spdify.errors import UsageError
from spdify.records import Limit, Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS: dict[Quantity, dict[str, Fraction]] = {
    "macs": {"": Fraction(1), "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12)},
    "params": {"": Fraction(1), "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9)},
    "latency": {"ms": Fraction(1, 1000), "s": Fraction(1)},
}
SHARE = "%"
_FORM = re.compile(r"(?P<quantity>[a-z]+)=(?P<sign>\+?)(?P<number>\d{1,15}(\.\d{1,15})?)(?P<unit>[A-Za-z%]*)", re.ASCII)
_DIGITS = 3  # of a percentage that is named as enough
_HINT = (
    "Write macs=+15% (so much more than now), macs=+0.5G (more, as a number) or macs=4.5G (in all); "
    "params (k, M, G) and latency (ms, s) alike."
)


@dataclass(frozen=True)
class Wish:
    """A budget as it was given; the network that it is for is not known yet.

    Attributes:
        text: As it was given.
        quantity: What is limited.
        kind: `share` of the original that may be added, `more` in units, or `total` in units.
        amount: A share (0.15), or a number of MACs, parameters or seconds.
    """

    text: str
    quantity: Quantity
    kind: Literal["share", "more", "total"]
    amount: Fraction

    def limit(self, original: float) -> Limit:
        """Give what that is for a network with so many MACs, parameters or seconds."""
        now = Fraction(original)
        more = {"share": self.amount * now, "more": self.amount, "total": self.amount - now}[self.kind]
        allowed = float(more) if self.quantity == "latency" else math.floor(more)
        return Limit(text=self.text, quantity=self.quantity, original=original, allowed=allowed)


def read_wishes(texts: str | Sequence[str]) -> tuple[Wish, ...]:
    """Read budgets, one or several.

    Raises:
        UsageError: One is not of the form, or two are about the same quantity.
    """
    wishes = tuple(_read(text) for text in ([texts] if isinstance(texts, str) else texts))
    twice = [quantity for quantity, count in Counter(wish.quantity for wish in wishes).items() if count > 1]
    if twice:
        raise UsageError(f"cannot keep to two budgets for {twice[0]}", hint="Give each quantity once.")
    return wishes


def _read(text: str) -> Wish:
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"cannot read the budget {text!r}: expected QUANTITY=AMOUNT", hint=_HINT)
    name, sign, unit = found["quantity"], found["sign"], found["unit"]
    if name not in UNITS:
        raise UsageError(f"cannot read the budget {text!r}: expected {', '.join(UNITS)}, got {name!r}", hint=_HINT)
    quantity, number = cast("Quantity", name), Fraction(found["number"])
    if unit == SHARE:
        if not sign:
            raise UsageError(
                f"cannot read the budget {text!r}: a percentage is what may be added, and has a + before it",
                hint=f"Write {name}=+{found['number']}%.",
            )
        return Wish(text, quantity, "share", number / 100)
    if unit not in UNITS[quantity]:
        known = ", ".join(filter(None, (SHARE, *UNITS[quantity])))
        raise UsageError(f"cannot read the budget {text!r}: expected a unit of {known}, got {unit!r}", hint=_HINT)
    return Wish(text, quantity, "more" if sign else "total", number * UNITS[quantity][unit])


def enough(limit: Limit, cost: float) -> str:
    """Give the smallest budget, in three digits, that leaves room for a cost: `macs=+0.0197%`."""
    if not limit.original or cost <= 0:
        return f"{limit.quantity}=+{max(0, math.ceil(cost))}" if limit.quantity != "latency" else "latency=+0%"
    percent = Decimal(100) * Decimal(cost) / Decimal(limit.original)
    step = Decimal(1).scaleb(percent.adjusted() - _DIGITS + 1)
    rounded = (percent / step).to_integral_value(rounding=ROUND_CEILING) * step
    return f"{limit.quantity}=+{rounded:f}%"
