"""Decisions whose blocks put out more channels: carried on through the model, or brought back at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.engine.binding import make_rewrite
from spdify.graph.propagation import propagate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.graph.sites import Survey
    from spdify.records import Adjustment, Decision, Plan


def carry_channels(survey: Survey, decisions: Sequence[Decision]) -> tuple[list[Decision], tuple[Adjustment, ...]]:
    """Follow the channels that leave sites; where they cannot go on, the rewrite's reduced form takes its place.

    Args:
        survey: Of the model.
        decisions: On all of its sites.

    Returns:
        The decisions, and what becomes of the modules that the channels reach.
    """
    starts = {d.site.path: (d.site, d.leaves) for d in decisions if d.leaves is not None and not d.site.operation}
    if not starts or survey.facts is None:
        return list(decisions), ()
    replaced = {d.site.path: d.site for d in decisions if d.action == "applied" and not d.site.operation}
    found = propagate(survey.flows, survey.facts, starts, replaced)
    return [_brought_back(d, found.stopped) for d in decisions], found.adjustments


def exact_part(plan: Plan, survey: Survey) -> Plan:
    """Give the plan with only those applied decisions that claim to be exact, their channels followed anew."""
    exact = [d for d in plan.applied if d.claim is not None and d.claim.value == "exact"]
    decisions, adjustments = carry_channels(survey, exact)
    return plan.model_copy(update={"decisions": tuple(decisions), "adjustments": adjustments})


def _brought_back(decision: Decision, stopped: dict[str, str]) -> Decision:
    """Give the decision with its channels brought back where they were stopped."""
    site, reason = decision.site, stopped.get(decision.site.name)
    if reason is None:
        return decision
    rewrite = make_rewrite(decision.rewrite or "", decision.params, where=site.name).reduced()
    common = {"params": rewrite.params.model_dump(), "leaves": None}
    if (refusal := rewrite.check(site)) is not None:
        return decision.model_copy(update=common | {"action": "refused", "claim": None, "reason": refusal})
    words = f"its channels are brought back at once: {reason}"
    return decision.model_copy(update=common | {"claim": rewrite.claim(site), "reason": words})
