"""What a budget bought, as a rulebook: one rule per site, so that plans are made as ever."""

from __future__ import annotations

import glob
import re
from collections import Counter
from typing import TYPE_CHECKING

from spdify.rulebook import KEEP, Match, Rule, Rulebook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.records import Decision, Plan, Site, SiteOptions

_NOT_KEBAB = re.compile(r"[^a-z0-9]+")


def budget_rulebook(
    rulebook: Rulebook, plan: Plan, sites: Sequence[SiteOptions], reasons: Mapping[str, str]
) -> Rulebook:
    """Write the choice as a rulebook.

    Args:
        rulebook: The rules that the choice was made under.
        plan: Their plan: what they keep or refuse gets a rule that does so again.
        sites: With what was chosen for each.
        reasons: Why sites stay that were not bought, by name.
    """
    options = {site.site: site for site in sites}
    rules: list[Rule] = []
    places: Counter[str] = Counter()  # of what downsamples: of other kinds, what is kept is not in a plan
    for index, decision in enumerate(plan.decisions):
        place = places[decision.site.kind]
        places[decision.site.kind] += 1
        if decision.rule is not None:
            name = _name(decision.site.name, index, {rule.name for rule in rules})
            rules.append(_rule(name, place, decision, options.get(decision.site.name), reasons))
    return Rulebook(
        name=f"{rulebook.name}-budget",
        schema_version=1,
        summary=f"What a budget bought of the forms that {rulebook.name} allows.",
        source=rulebook.source,
        rules=tuple(rules),
    )


def _match(site: Site, place: int) -> Match:
    """Match one site alone; its place tells several calls that share a path apart."""
    path = (glob.escape(site.path),) if site.path else None
    if site.kind == "downsampling":
        return Match(path=path, position=str(place))
    if site.kind == "convolution":
        return Match(path=path, stride=1)
    return Match.model_validate({"path": path, "operator": site.operator})


def _rule(name: str, place: int, decision: Decision, site: SiteOptions | None, reasons: Mapping[str, str]) -> Rule:
    """Make the rule of one site."""
    match = _match(decision.site, place)
    if site is not None and site.chosen != KEEP:
        params = next(form.params for form in site.forms if form.name == site.chosen)
        return Rule(name=name, rewrite=site.rewrite, match=match, params=params)
    if decision.action != "applied" and decision.rewrite is not None:
        return Rule(name=name, rewrite=decision.rewrite, match=match, params=decision.params)
    return Rule(name=name, rewrite=KEEP, reason=reasons.get(decision.site.name, decision.reason), match=match)


def _name(site: str, index: int, taken: set[str]) -> str:
    """Give a rule's name from a site's: `layer2-0-conv2`."""
    name = _NOT_KEBAB.sub("-", site.lower()).strip("-") or "site"
    return name if name not in taken else f"{name}-{index}"
