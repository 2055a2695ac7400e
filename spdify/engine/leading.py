"""Blocks that learn one size together: which of them has the parameter, and who reads it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spdify.blocks.learned_size import LearnedSize
from spdify.engine.binding import make_rewrite
from spdify.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from spdify.records import Decision, Plan
    from spdify.rewrites import Rewrite


def choose_leaders(decisions: Sequence[Decision]) -> list[Decision]:
    """Have the first site of each level that can lead do so, and the others follow, whatever was decided before.

    Where none at a level can, they are refused.
    """
    leaders: dict[tuple[str, str], str] = {}
    for decision in decisions:
        level = _level_of(decision)
        if level and not _rewrite_of(decision).follows_only(decision.site):
            leaders.setdefault(level, decision.site.block_path)
    return [_led(decision, leaders) for decision in decisions]


def _rewrite_of(decision: Decision) -> Rewrite[Any]:
    return make_rewrite(decision.rewrite or "", decision.params, where=decision.site.name)


def _level_of(decision: Decision) -> tuple[str, str] | None:
    """Give what it shares with those that learn a size together; None where it learns none."""
    if decision.action != "applied" or decision.rewrite is None:
        return None
    level = _rewrite_of(decision).level(decision.site)
    return (decision.rewrite, level) if level else None


def _led(decision: Decision, leaders: dict[tuple[str, str], str]) -> Decision:
    level, site = _level_of(decision), decision.site
    if level is None:
        return decision
    rewrite = _rewrite_of(decision)
    if level not in leaders:
        refusal = {"action": "refused", "claim": None, "reason": rewrite.follows_only(site)}
        return decision.model_copy(update=refusal)
    leader = leaders[level]
    led = rewrite.led_by("" if leader == site.block_path else leader)
    anew = decision.claim is not None and decision.claim.value == "reinitialised"
    claim = decision.claim if anew else led.claim(site)
    return decision.model_copy(update={"params": led.params.model_dump(), "claim": claim})


def link_blocks(model: nn.Module, plan: Plan) -> None:
    """Have each block of a plan that is led read the size of its leader, in place.

    Raises:
        PlanError: There is no such block.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for decision in plan.applied:
        site = decision.site
        leader = _rewrite_of(decision).leader()
        if not leader:
            continue
        block, first = modules.get(site.block_path), modules.get(leader)
        if not isinstance(block, LearnedSize) or not isinstance(first, LearnedSize) or first.leader is not first:
            msg = f"cannot apply the plan at {site.name}: there is no block at {leader} whose size it could share"
            raise PlanError(msg, hint="The plan is damaged: make it again.")
        block.follow(first)
