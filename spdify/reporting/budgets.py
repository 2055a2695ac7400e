"""What a budget could buy, and what it bought, in words and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.reporting.figures import change, quantity

if TYPE_CHECKING:
    from spdify.records import Budget, Limit, Quantity, SiteOptions

NAMES: dict[Quantity, str] = {"macs": "MACs", "params": "parameters", "latency": "latency"}
KEEP = "keep"
ORDERS = {
    "resolution": "highest input resolution first",
    "last": "last sites first",
    "cheapest": "cheapest sites first",
}


def budget_lines(budget: Budget) -> list[str]:
    """Say what was allowed and spent, of each kind, and what more would be spent on."""
    return [*(_limit_line(budget, limit) for limit in budget.limits), *_latency_lines(budget), _order_line(budget)]


def budget_columns(budget: Budget) -> tuple[str, ...]:
    """Give the heads of the columns of `budget_rows`; those of costs are in the middle."""
    return ("site", "input", "form", *(NAMES[limit.quantity] for limit in budget.limits), "chosen")


def budget_rows(budget: Budget) -> list[tuple[str, ...]]:
    """Give one row per form of each site, with its cost as a share of the whole network's."""
    rows = []
    for site in budget.sites:
        forms = [(KEEP, ["" for _ in budget.limits])] if site.chosen == KEEP else []
        forms += [
            (form.name, [_cost(limit, form.cost[limit.quantity]) for limit in budget.limits]) for form in site.forms
        ]
        for index, (name, costs) in enumerate(forms):
            first = (site.site, "×".join(map(str, site.size))) if index == 0 else ("", "")
            rows.append((*first, name, *costs, "chosen" if name == site.chosen else ""))
    return rows


def _limit_line(budget: Budget, limit: Limit) -> str:
    spent = budget.spent(limit.quantity)
    standard = sum(site.cost(site.standard, limit.quantity) for site in budget.sites)
    richest = sum(_dearest(site, limit.quantity) for site in budget.sites)
    kind = "spent, site by site" if limit.quantity == "latency" else "spent"
    allowed = f"{amount(limit, limit.allowed)} more allowed, {amount(limit, spent)} {kind} ({_cost(limit, spent)})"
    whole = f"every site in its standard form {_cost(limit, standard)}, in its dearest {_cost(limit, richest)}"
    return f"Budget {limit.text}: {allowed}; {whole}."


def _latency_lines(budget: Budget) -> list[str]:
    found = budget.latency
    if found is None:
        return []
    back = f"; the last {found.taken_back} of what was bought taken back for it" if found.taken_back else ""
    threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    ratio, low, high = (f"{100 * (value - 1):+.1f}%" for value in (found.ratio, found.low, found.high))
    whole = f"{ratio} latency (median of {found.rounds} pairs; quartiles {low} to {high}){back}"
    return [
        f"Whole network in its deployed form, with weights as if trained: {whole}.",
        f"Measured with PyTorch on this machine ({found.device}, {threads}), batch 1; other machines differ.",
    ]


def _order_line(budget: Budget) -> str:
    order = ORDERS.get(budget.prefer, f"{budget.prefer} first, then by resolution")
    return f"Bought in this order: {order}; standard forms, then richer ones."


def _dearest(site: SiteOptions, kind: Quantity) -> float:
    return max(form.cost[kind] for form in site.forms)


def _cost(limit: Limit, cost: float) -> str:
    return change(limit.original, limit.original + cost)


def amount(limit: Limit, number: float) -> str:
    """Give a number of MACs or parameters, or milliseconds."""
    return f"{1000 * number:.3g} ms" if limit.quantity == "latency" else quantity(number)
