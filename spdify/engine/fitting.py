"""Plans that change the sizes of maps, tried out on the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.blocks.learned_size import try_sizes
from spdify.engine.applying import apply
from spdify.engine.binding import make_rewrite
from spdify.engine.channels import carry_channels
from spdify.engine.leading import choose_leaders
from spdify.engine.planning import make_plan
from spdify.errors import TraceError
from spdify.graph import fingerprint
from spdify.graph.census import take_census

if TYPE_CHECKING:
    from typing import Literal

    from torch import nn

    from spdify.graph.sites import Survey
    from spdify.records import Decision, Inputs, Plan
    from spdify.rulebook import Rulebook


#: Sizes that do not fit may do so by chance.
TURNS = 3


def plan_model(
    model: nn.Module,
    survey: Survey,
    rulebook: Rulebook,
    *,
    inputs: Inputs,
    init: Literal["exact", "random"] = "exact",
) -> Plan:
    """Decide on every site of a model; refuse what changes sizes where the network does not run with that.

    Args:
        model: Not changed.
        survey: Of the model.
        rulebook: Rules in order.
        inputs: Example inputs that the sites were found with.
        init: As `make_plan` takes it.

    Raises:
        RulebookError: A rule names no rewrite, or gives it what it does not take.
    """
    plan = make_plan(survey, rulebook, fingerprint=fingerprint(model), inputs=inputs, init=init)
    if not any(_resizes(decision) for decision in plan.applied):
        return plan
    reason = "the network does not run without it"
    try:
        converted = apply(model, plan)
        take_census(converted, inputs, mode="eval")
        for turn in range(TURNS):
            if not try_sizes(converted, turn):
                break
            reason = "the network does not run with other sizes there"
            take_census(converted, inputs, mode="eval")
    except TraceError as error:
        return _refused(plan, survey, f"{reason}: {error.message}")
    return plan


def _resizes(decision: Decision) -> bool:
    if decision.action != "applied" or decision.rewrite is None:
        return False
    return make_rewrite(decision.rewrite, decision.params, where=decision.site.name).resizes()


def _refused(plan: Plan, survey: Survey, reason: str) -> Plan:
    """Refuse all that resizes, and follow the channels of the rest anew."""
    refusal = {"action": "refused", "claim": None, "reason": reason}
    decisions = [d.model_copy(update=refusal) if _resizes(d) else d for d in plan.decisions]
    decisions, adjustments = carry_channels(survey, choose_leaders(decisions))
    return plan.model_copy(update={"decisions": tuple(decisions), "adjustments": adjustments})
