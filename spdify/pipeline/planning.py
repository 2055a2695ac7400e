"""What is done to an opened model: as the rules say, within a budget where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from spdify.budgeting import BudgetSettings, plan_within
from spdify.engine import plan_model
from spdify.records import Check
from spdify.rulebook import load_rules, overridden, with_overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spdify.graph.sites import Survey
    from spdify.pipeline.opening import Opened
    from spdify.records import Plan, Report


def plan_opened(  # noqa: PLR0913 - the model, the rules, and what is allowed
    opened: Opened,
    survey: Survey,
    rules: str | Sequence[str],
    overrides: Sequence[str],
    budget: BudgetSettings,
    *,
    init: Literal["exact", "random"] = "exact",
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Decide on every site of a model.

    Args:
        opened: The model; not changed.
        survey: Of it.
        rules: Name or path of a rulebook, or several.
        overrides: `rule.param=value` items.
        budget: What may be spent; nothing limits it where there is none.
        init: As `spdify.engine.make_plan` takes it.
        progress: Told, in words, what is being done.

    Raises:
        NothingToConvertError: No form of any site fits into the budget.
        RulebookError: The rulebook cannot be used.
        UsageError: An override, or what the budget prefers, cannot be read.
    """
    book = load_rules(rules)
    rulebook = with_overrides(book, overrides)
    if not budget.wishes:
        return plan_model(opened.model, survey, rulebook, inputs=opened.inputs, init=init)
    return plan_within(
        opened.model, survey, rulebook, budget, inputs=opened.inputs, fixed=overridden(book, overrides), init=init,
        progress=progress,
    )  # fmt: skip


def budget_checks(report: Report) -> tuple[Check, ...]:
    """Hold a finished conversion to its budget: what was counted and measured of the whole network, not of the forms.

    Args:
        report: Of the conversion.

    Returns:
        One check per limit, of the increase; of latency as a share.
    """
    budget, checks = report.budget, []
    for limit in budget.limits if budget else ():
        name = f"budget {limit.text}"
        if limit.quantity == "latency":
            checks.append(_latency_check(name, report, limit.allowed / limit.original))
            continue
        more = getattr(report.after, limit.quantity) - getattr(report.before, limit.quantity)
        outcome: Literal["passed", "failed"] = "passed" if more <= limit.allowed else "failed"
        checks.append(Check(name=name, outcome=outcome, value=more, tolerance=limit.allowed, detail="increase"))
    return tuple(checks)


def _latency_check(name: str, report: Report, allowed: float) -> Check:
    found = report.budget.latency if report.budget else None
    if found is None:
        return Check(name=name, outcome="not run", detail="it was not measured")
    low, more, high = (ratio - 1 for ratio in (found.low, found.ratio, found.high))
    detail = f"measured increase, median of {found.rounds}; quartiles {100 * low:+.1f}% to {100 * high:+.1f}%"
    outcome: Literal["passed", "failed"] = "passed" if more <= allowed else "failed"
    return Check(name=name, outcome=outcome, value=more, tolerance=allowed, detail=detail)
