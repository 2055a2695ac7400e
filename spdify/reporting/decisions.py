"""What was decided at a site, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.records import ComparedSite
from spdify.rewrites import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spdify.records import Decision, ParamValue, Plan

COMPARED_COLUMNS = ("site", "operator", "in the first", "in the second")
AS_IT_IS = "as it is"


def chosen_params(decision: Decision) -> dict[str, ParamValue]:
    """Give the parameters that are not the rewrite's defaults."""
    kind = REGISTRY.get(decision.rewrite or "")
    usual = {name: known.default for name, known in kind.params_type.model_fields.items()} if kind else {}
    return {name: value for name, value in decision.params.items() if value != usual.get(name)}


def decision_words(decision: Decision) -> str:
    """Say what is done to a site: `replace-strided-conv (kernel odd), exact`; or why it stays."""
    if decision.action != "applied":
        return f"{decision.action}: {decision.reason}" if decision.reason else decision.action
    params = ", ".join(f"{name} {value}" for name, value in chosen_params(decision).items())
    claim = f", {decision.claim.value}" if decision.claim is not None else ""
    return f"{decision.rewrite}{f' ({params})' if params else ''}{claim}"


def compared_sites(first: Iterable[Plan], second: Iterable[Plan]) -> tuple[ComparedSite, ...]:
    """Put side by side what the plans of two networks do at each site; a later plan's word is the last.

    Args:
        first: Plans that led to the first network.
        second: Plans that led to the second.
    """
    sides = [_last_words(plans) for plans in (first, second)]
    known = {name: decision for side in sides for name, decision in side.items()}
    return tuple(
        ComparedSite(
            name=name, window=decision.site.window, first=_words(sides[0], name), second=_words(sides[1], name)
        )
        for name, decision in known.items()
    )


def _last_words(plans: Iterable[Plan]) -> dict[str, Decision]:
    return {decision.site.name: decision for plan in plans for decision in plan.decisions}


def _words(decisions: Mapping[str, Decision], name: str) -> str:
    return decision_words(decisions[name]) if name in decisions else AS_IT_IS


def compared_rows(sites: Iterable[ComparedSite]) -> list[tuple[str, str, str, str]]:
    """Give one row per site, for `COMPARED_COLUMNS`."""
    return [(site.name, site.window, site.first, site.second) for site in sites]
