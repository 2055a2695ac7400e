"""A plan within a budget: options priced, chosen among, planned as ever, and, for latency, measured as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spdify.benchmarking import paired_seconds
from spdify.budgeting.amounts import Wish, enough, read_wishes
from spdify.budgeting.choosing import Purchase, choose, in_order, share, standard_form, with_purchases
from spdify.budgeting.deciding import budget_rulebook
from spdify.budgeting.forms import site_options
from spdify.budgeting.latency import Clock, compare, network_seconds, with_latency
from spdify.engine import apply, plan_model
from spdify.errors import NothingToConvertError, UsageError
from spdify.records import Budget, LatencyCheck, Limit, Plan
from spdify.reporting import measure
from spdify.reporting.budgets import KEEP, NAMES, amount

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import nn

    from spdify.graph.sites import Survey
    from spdify.records import Inputs, SiteOptions
    from spdify.rulebook import Rulebook

PREFER = "resolution"


@dataclass(frozen=True)
class BudgetSettings:
    """What may be spent, and on what first.

    Attributes:
        wishes: As they were given; all must hold.
        prefer: `resolution`, `last`, `cheapest`, or a glob of sites that come first.

    Raises:
        UsageError: There is an order and nothing to spend.
    """

    wishes: tuple[Wish, ...] = ()
    prefer: str = PREFER

    @classmethod
    def read(cls, budget: str | Sequence[str], prefer: str) -> BudgetSettings:
        """Read them as they are given on the command line.

        Raises:
            UsageError: A budget cannot be read, or there is an order and no budget.
        """
        return cls(read_wishes(budget), prefer)

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if self.prefer != PREFER and not self.wishes:
            raise UsageError(f"cannot prefer {self.prefer!r} without a budget", hint="Add --budget macs=+15%.")


@dataclass(frozen=True)
class _Market:
    """What is for sale, and for how much."""

    model: nn.Module
    survey: Survey
    rulebook: Rulebook
    inputs: Inputs
    init: Literal["exact", "random"]
    standard: Plan
    sites: tuple[SiteOptions, ...]
    unsold: Mapping[str, str]
    limits: tuple[Limit, ...]


def plan_within(  # noqa: PLR0913 - a plan's arguments, and what is allowed
    model: nn.Module,
    survey: Survey,
    rulebook: Rulebook,
    settings: BudgetSettings,
    *,
    inputs: Inputs,
    fixed: Mapping[str, Collection[str]],
    init: Literal["exact", "random"] = "exact",
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = paired_seconds,
) -> Plan:
    """Decide on every site so that all limits hold.

    Args:
        model: Not changed.
        survey: Of the model.
        rulebook: What they keep or refuse stays so; what they rewrite may get any exact form of the same rewrite.
        settings: What may be spent, and on what first.
        inputs: Example inputs that the sites were found with.
        fixed: By rule, parameters that were set by hand: no form with other values is chosen.
        init: As `make_plan` takes it.
        progress: Told, in words, what is being done.
        clock: What times, where latency is limited.

    Returns:
        The plan; where the rules rewrite nothing, theirs.

    Raises:
        NothingToConvertError: Not one form of one site can be bought.
        UsageError: The order names no site.
        RulebookError: A rule names no rewrite, or gives it what it does not take.
    """
    standard = plan_model(model, survey, rulebook, inputs=inputs)
    if not standard.applied:
        return standard
    progress("pricing the forms of each site")
    sites, unsold = site_options(model, standard, fixed)
    cost = measure(model, survey.census)
    now: dict[str, float] = {"macs": cost.macs, "params": cost.params}
    if any(wish.quantity == "latency" for wish in settings.wishes):
        progress("timing the forms of each site")
        now["latency"] = network_seconds(model, inputs, clock)
        sites = with_latency(model, sites, {d.site.name: d for d in standard.applied}, clock)
    limits = tuple(wish.limit(now[wish.quantity]) for wish in settings.wishes)
    market = _Market(model, survey, rulebook, inputs, init, standard, sites, unsold, limits)
    bought = choose(in_order(sites, settings.prefer, limits), limits)
    if not bought:
        raise _nothing_fits(market)
    plan, checked = _planned(market, bought), None
    if "latency" in now:
        plan, bought, checked = _fast_enough(market, bought, progress, clock)
    budget = Budget(limits=limits, prefer=settings.prefer, sites=with_purchases(sites, bought), latency=checked)
    return plan.model_copy(update={"budget": budget})


def _planned(market: _Market, bought: Sequence[Purchase]) -> Plan:
    """Make the plan of what was bought."""
    sites = with_purchases(market.sites, bought)
    left_out = {s.site: _left_out(s, sites, market.limits) for s in sites if s.chosen == KEEP} | dict(market.unsold)
    reasons = {name: f"left out by the budget: {reason}" for name, reason in left_out.items()}
    rulebook = budget_rulebook(market.rulebook, market.standard, sites, reasons)
    return plan_model(market.model, market.survey, rulebook, inputs=market.inputs, init=market.init)


def _fast_enough(
    market: _Market, bought: list[Purchase], progress: Callable[[str], None], clock: Clock
) -> tuple[Plan, list[Purchase], LatencyCheck]:
    """Take the last purchases back until the whole network, measured, is within its limit.

    Raises:
        NothingToConvertError: It is too slow with the first one alone.
    """
    limit = next(limit for limit in market.limits if limit.quantity == "latency")
    for kept in range(len(bought), 0, -1):
        progress(f"timing the whole network with {kept} of {len(bought)} purchases")
        plan = _planned(market, bought[:kept])
        found = compare(market.model, apply(market.model, plan), market.inputs, clock)
        if found.ratio <= 1 + limit.allowed / limit.original:
            return plan, bought[:kept], found.model_copy(update={"taken_back": len(bought) - kept})
    first = bought[0]
    raise NothingToConvertError(
        f"nothing can be bought with {limit.text}: with {first.site} alone ({first.after}) the whole network takes "
        f"{100 * (found.ratio - 1):+.1f}% longer, as measured",
        hint="Latency is measured anew each time; on a busy machine it says little. Allow more, or limit macs instead.",
    )


def _nothing_fits(market: _Market) -> NothingToConvertError:
    """Say what would be enough for one site, and for all."""
    limits, sites = market.limits, market.sites
    words = " and ".join(limit.text for limit in limits)
    if not sites:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in market.unsold.items())
        return NothingToConvertError(
            f"nothing can be bought with {words}: {reasons}", hint="A budget buys exact forms with a cost of their own."
        )
    totals = [f"{NAMES[x.quantity]} {amount(x, x.original)}" for x in limits if x.allowed < 0]
    less = f" (as it is it has {', '.join(totals)})" if totals else ""
    wide = [limit.model_copy(update={"allowed": limit.original or 1}) for limit in limits]
    site, form = min(((s, f) for s in sites for f in s.forms), key=lambda pair: share(pair[0], pair[1], wide))
    costs = ", ".join(f"{amount(x, site.cost(form.name, x.quantity))} {NAMES[x.quantity]}" for x in limits)
    one = " ".join(f"--budget {enough(x, site.cost(form.name, x.quantity))}" for x in limits)
    everything = [(x, sum(standard_form(s).cost[x.quantity] for s in sites)) for x in limits]
    every = " ".join(f"--budget {enough(x, total)}" for x, total in everything)
    return NothingToConvertError(
        f"nothing can be bought with {words}{less}: the cheapest is {site.site} ({form.name}) for {costs}",
        hint=f"Enough for that: {one}. For all {len(sites)} sites in their standard form: {every}.",
    )


def _left_out(site: SiteOptions, sites: Sequence[SiteOptions], limits: Sequence[Limit]) -> str:
    """Say what the plainest form of a site would cost, and what is left of the limit that it exceeds most."""
    form = site.forms[0]

    def left(limit: Limit) -> float:
        return limit.allowed - sum(s.cost(s.chosen, limit.quantity) for s in sites)

    def over(limit: Limit) -> float:
        return (form.cost[limit.quantity] - left(limit)) / (limit.original or 1)

    limit = max(limits, key=over)
    if over(limit) <= 0:  # each form was timed by itself
        return "with it the whole network, as measured, was too slow"
    costs = f"{form.name} costs {amount(limit, form.cost[limit.quantity])} {NAMES[limit.quantity]}"
    return f"{costs}, {amount(limit, left(limit))} are left"
