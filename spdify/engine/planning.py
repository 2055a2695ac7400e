"""From sites and rules to a plan."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from spdify.engine.binding import bind
from spdify.engine.channels import carry_channels
from spdify.engine.leading import choose_leaders
from spdify.graph.obstacles import RETURNS_INDICES
from spdify.records import Claim, Decision, LeftAlone, Plan
from spdify.rewrites.max_pool import ReplaceMaxPool
from spdify.rulebook import KEEP, first_match

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spdify.graph.sites import Survey
    from spdify.records import Inputs, Kind, Site
    from spdify.rewrites import Rewrite
    from spdify.rulebook import Rule, Rulebook


def make_plan(
    survey: Survey, rulebook: Rulebook, *, fingerprint: str, inputs: Inputs, init: Literal["exact", "random"] = "exact"
) -> Plan:
    """Decide on every site of the kinds that the rulebook has rules for.

    Of other kinds than downsampling, what is kept is left out. The first rule that matches a site decides; the names of
    later ones that match too are kept in the decision.

    Args:
        survey: Sites of the model.
        rulebook: Rules in order.
        fingerprint: Of the model's structure.
        inputs: Example inputs that the sites were found with.
        init: `exact`, or `random` to have blocks start with weights of their own, to be trained from scratch.

    Raises:
        RulebookError: A rule names no rewrite, or gives it what it does not take.
    """
    rewrites = bind(rulebook)
    asked = _asks_for_positions(survey)
    sites = [site for site in survey.sites if site.kind in rulebook.kinds]
    totals: Counter[Kind] = Counter(site.kind for site in sites)
    seen: Counter[str] = Counter()
    decisions = []
    for site in sites:
        rule, others = first_match(rulebook, site, index=seen[site.kind], total=totals[site.kind])
        seen[site.kind] += 1
        decision = _decide(site, rule, others, rewrites, asked)
        # Where nothing is put, or an ordinary convolution stays, there is nothing to tell.
        if site.kind == "downsampling" or decision.action != "kept":
            decisions.append(decision)
    decisions, adjustments = carry_channels(survey, choose_leaders(decisions))
    if init == "random":
        decisions = [_reinitialised(d) for d in decisions]
    return Plan(
        init=init,
        rulebook=rulebook.name,
        rulebook_source=str(rulebook.source),
        fingerprint=fingerprint,
        inputs=inputs,
        decisions=tuple(decisions),
        adjustments=adjustments,
        left_alone=(*survey.left_alone, *_not_found(rulebook, totals)),
    )


def _not_found(rulebook: Rulebook, totals: Mapping[Kind, int]) -> Iterator[LeftAlone]:
    """List the kinds of places that there are rules for and that the model does not have."""
    for kind in sorted(rulebook.kinds - {"downsampling"}):
        if not totals[kind]:
            yield LeftAlone(path="", operator=kind.replace("_", " "), reason="there are rules for it, none was found")


def _reinitialised(decision: Decision) -> Decision:
    """Take back what a rewrite claims: its block gets random weights. A functional call is given its weights."""
    if decision.action != "applied" or decision.site.operation:
        return decision
    claim = Claim(value="reinitialised", training="random weights: it has to be trained")
    return decision.model_copy(update={"claim": claim})


def _asks_for_positions(survey: Survey) -> str:
    """Name a pool that says where its largest values lie; empty where none does."""
    found = (s.name for s in survey.sites if any(why.startswith(RETURNS_INDICES) for why in s.obstacles))
    return next(found, "")


def _decide(
    site: Site, rule: Rule | None, others: tuple[str, ...], rewrites: Mapping[str, Rewrite[Any]], asked: str
) -> Decision:
    """Apply one rule to one site."""
    if rule is None:
        return Decision(site=site, action="kept", reason="no rule matches")
    if rule.rewrite == KEEP:
        return Decision(site=site, action="kept", rule=rule.name, reason=rule.reason, also_matched=others)
    rewrite = rewrites[rule.name]
    common = {
        "site": site, "rule": rule.name, "rewrite": rule.rewrite, "also_matched": others,
        "params": rewrite.params.model_dump(),
    }  # fmt: skip
    if (reason := rewrite.keep(site)) is not None:
        return Decision(action="kept", reason=reason, **common)
    if (reason := rewrite.check(site)) is not None:
        return Decision(action="refused", reason=reason, **common)
    claim = rewrite.claim(site)
    if asked and isinstance(rewrite, ReplaceMaxPool) and claim.value == "exact":
        # Windows that overlap give the same value twice; the tournament rounds each in its own way.
        reason = f"equal values would differ by rounding, and {asked} says which is the first of them"
        return Decision(action="refused", reason=reason, **common)
    return Decision(action="applied", claim=claim, leaves=rewrite.leaves(site), **common)
