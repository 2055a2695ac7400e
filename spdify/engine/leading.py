"""Blocks that learn one size together: which of them has the parameter, and who reads it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.blocks.learned_size import LearnedSize
from spdify.engine.binding import make_rewrite
from spdify.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from spdify.records import Decision, Plan


def choose_leaders(decisions: Sequence[Decision]) -> list[Decision]:
    """Have the first site of each level lead, and the others follow; some decisions of a plan have leaders anew."""
    leaders: dict[tuple[str, str], str] = {}
    return [_led(decision, leaders) for decision in decisions]


def _led(decision: Decision, leaders: dict[tuple[str, str], str]) -> Decision:
    if decision.action != "applied" or decision.rewrite is None:
        return decision
    site = decision.site
    rewrite = make_rewrite(decision.rewrite, decision.params, where=site.name)
    level = rewrite.level(site)
    if not level:
        return decision
    leader = leaders.setdefault((decision.rewrite, level), site.block_path)
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
        leader = make_rewrite(decision.rewrite or "", decision.params, where=site.name).leader()
        if not leader:
            continue
        block, first = modules.get(site.block_path), modules.get(leader)
        if not isinstance(block, LearnedSize) or not isinstance(first, LearnedSize) or first.leader is not first:
            msg = f"cannot apply the plan at {site.name}: there is no block at {leader} whose size it could share"
            raise PlanError(msg, hint="The plan is damaged: make it again.")
        block.follow(first)
