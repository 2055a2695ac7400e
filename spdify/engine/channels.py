"""Decisions whose blocks put out more channels: carried on through the model, or brought back at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.engine.binding import make_rewrite
from spdify.engine.leading import choose_leaders
from spdify.graph.following import activation_after
from spdify.graph.propagation import propagate
from spdify.graph.walk import Start
from spdify.records import Adjustment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.graph.sites import Survey
    from spdify.records import Decision, Plan


def carry_channels(survey: Survey, decisions: Sequence[Decision]) -> tuple[list[Decision], tuple[Adjustment, ...]]:
    """Follow the channels that leave sites; where they cannot go on, the rewrite's reduced form takes its place.

    Args:
        survey: Of the model.
        decisions: On all of its sites.

    Returns:
        The decisions, and what becomes of the modules that the channels reach.
    """
    decisions, activations = _with_activations(survey, decisions)
    starts = {d.site.path: Start(d.site.name, d.leaves) for d in decisions if d.leaves is not None}
    if not starts:
        return decisions, activations
    replaced = {d.site.path: d.site for d in decisions if d.action == "applied" and not d.site.operation}
    edited = frozenset(d.site.path for d in decisions if d.action == "applied" and d.site.functional)
    followed = frozenset(d.site.path for d in decisions if d.action == "applied" and d.site.inserted)
    found = propagate(survey.flows, survey.facts, starts, replaced, edited, followed)
    return [_brought_back(d, found.stopped) for d in decisions], (*activations, *found.adjustments)


def _with_activations(survey: Survey, decisions: Sequence[Decision]) -> tuple[list[Decision], tuple[Adjustment, ...]]:
    """Find the activations that become others with a site.

    Where there is none to be found, the rewrite's form without one takes its place, or the site is refused.
    """
    result, adjustments = [], []
    for decision in decisions:
        wanted = _activation_of(decision)
        path = activation_after(survey.flows, decision.site.path) if wanted else None
        if wanted and (path is None or survey.facts.aliases(path)):
            decision = _without_activation(decision)  # noqa: PLW2901
        elif path is not None:
            kind = type(survey.facts.module(path)).__name__
            adjustments.append(
                Adjustment(path=path, type_name=kind, role="carrier", block=wanted, sites=(decision.site.name,))
            )
        result.append(decision)
    return result, tuple(adjustments)


def _activation_of(decision: Decision) -> str:
    if decision.action != "applied" or decision.rewrite is None:
        return ""
    return make_rewrite(decision.rewrite, decision.params, where=decision.site.name).activation(decision.site)


def _without_activation(decision: Decision) -> Decision:
    other = make_rewrite(decision.rewrite or "", decision.params, where=decision.site.name).without_activation()
    if other is None:
        reason = 'no activation of its own comes after it (set activation = "keep")'
        return decision.model_copy(update={"action": "refused", "claim": None, "reason": reason})
    rewrite, words = other
    found = {"params": rewrite.params.model_dump(), "claim": rewrite.claim(decision.site)}
    return decision.model_copy(update=found | {"reason": f"no activation of its own comes after it: {words}"})


def exact_part(plan: Plan, survey: Survey) -> Plan:
    """Give the plan with only those applied decisions that claim to be exact, their channels followed anew.

    Where all are exact it is the plan itself.
    """
    exact = [d for d in plan.applied if d.claim is not None and d.claim.value == "exact"]
    if len(exact) == len(plan.applied):
        return plan
    decisions, adjustments = carry_channels(survey, choose_leaders(exact))
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
