"""Which form each site gets: in an order of preference, first what the rules ask for, then richer forms.

All sites start as they are. First each in turn gets its standard form, if what is left of every limit pays for it; else
the plainest of its other forms that it pays for; else it stays. Then each in turn gets the richest form that what is
left pays for. So nothing depends on more than the costs and the order, and no limit is exceeded at any moment.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from spdify.errors import UsageError
from spdify.reporting.budgets import KEEP, ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spdify.records import Limit, SiteForm, SiteOptions


class Purchase(NamedTuple):
    """One step: a site's form before and after."""

    site: str
    before: str
    after: str


def in_order(sites: Sequence[SiteOptions], prefer: str, limits: Sequence[Limit]) -> list[SiteOptions]:
    """Give the sites with those first that come first.

    Args:
        sites: In order of execution, which decides between equals.
        prefer: One of `ORDERS`; or a glob: sites whose name or path it fits come first, by resolution.
        limits: What `cheapest` goes by: the largest share of any limit.

    Raises:
        UsageError: It fits no site.
    """
    if prefer == "last":
        return list(reversed(sites))
    if prefer == "cheapest":
        return sorted(sites, key=lambda site: share(site, standard_form(site), limits))
    by_resolution = sorted(sites, key=lambda site: -min(site.size))
    if prefer == "resolution":
        return by_resolution
    if not any(_fits(site, prefer) for site in sites):
        raise UsageError(
            f"cannot prefer {prefer!r}: it is no order, and no site goes by that name",
            hint=f"Orders: {', '.join(ORDERS)}. Sites: {', '.join(site.site for site in sites)}.",
        )
    return sorted(by_resolution, key=lambda site: not _fits(site, prefer))


def standard_form(site: SiteOptions) -> SiteForm:
    """Give the form that the rules ask for."""
    return next(form for form in site.forms if form.name == site.standard)


def share(site: SiteOptions, form: SiteForm, limits: Iterable[Limit]) -> float:
    """Give the largest share of any limit that a form takes; infinite where it costs and nothing is allowed."""
    return max(_share(site.cost(form.name, limit.quantity), limit.allowed) for limit in limits)


def choose(sites: Sequence[SiteOptions], limits: Sequence[Limit]) -> list[Purchase]:
    """Spend what is allowed.

    Args:
        sites: In order of preference.
        limits: None of them is exceeded, with any number of the first purchases.

    Returns:
        What was bought, in order.
    """
    left = [limit.allowed for limit in limits]
    chosen = dict.fromkeys((site.site for site in sites), KEEP)
    bought: list[Purchase] = []

    def buy_first(site: SiteOptions, wanted: Iterable[str]) -> None:
        before = chosen[site.site]
        for name in wanted:
            more = [site.cost(name, x.quantity) - site.cost(before, x.quantity) for x in limits]
            if all(cost <= rest for cost, rest in zip(more, left, strict=True)):
                left[:] = [rest - cost for cost, rest in zip(more, left, strict=True)]
                chosen[site.site] = name
                bought.append(Purchase(site.site, before, name))
                return

    for site in sites:
        buy_first(site, [site.standard, *(form.name for form in site.forms if form.name != site.standard)])
    for site in sites:
        if chosen[site.site] != KEEP:
            buy_first(site, _richer(site, chosen[site.site]))
    return bought


def with_purchases(sites: Iterable[SiteOptions], bought: Iterable[Purchase]) -> tuple[SiteOptions, ...]:
    """Give the sites with what was chosen for each."""
    chosen = {purchase.site: purchase.after for purchase in bought}
    return tuple(site.model_copy(update={"chosen": chosen.get(site.site, KEEP)}) for site in sites)


def _richer(site: SiteOptions, name: str) -> list[str]:
    """Give the forms above one, the richest first."""
    names = [form.name for form in site.forms]
    return list(reversed(names[names.index(name) + 1 :]))


def _share(cost: float, allowed: float) -> float:
    if cost <= 0:
        return 0.0
    return cost / allowed if allowed > 0 else math.inf


def _fits(site: SiteOptions, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (site.site, site.site.partition("#")[0]))
