"""Where a change of channels went, and where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spdify.records import Adjustment, Decision, Layout, Report

MAX_READERS = 3  # modules that are named; all are in the JSON and in the table of modules

CHANNEL_COLUMNS = ("site", "channels", "carried through", "read by")
MODULE_COLUMNS = ("module", "class", "role", "in", "out")


def channel_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Give one row per site whose channels change: how many leave, how many modules carry them, and who reads them."""
    return [row for decision in report.decisions if (row := _row(decision, report.adjustments)) is not None]


def module_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """Give one row per module that follows a change of channels: before → after, on either side."""
    return [
        (a.path or "(model)", a.type_name, a.role, _change(a.takes), _change(a.gives) or a.block)
        for a in report.adjustments
    ]


def _row(decision: Decision, adjustments: tuple[Adjustment, ...]) -> tuple[str, str, str, str] | None:
    name = decision.site.name
    if decision.leaves is not None:
        mine = [a for a in adjustments if name in a.sites]
        readers = [a.path for a in mine if a.role == "consumer"]
        carriers = sum(a.role != "consumer" for a in mine)
        more = f" and {len(readers) - MAX_READERS} more" if len(readers) > MAX_READERS else ""
        words = f"{carriers} module" if carriers == 1 else f"{carriers} modules"
        return name, _change(decision.leaves), words, ", ".join(readers[:MAX_READERS]) + more
    if decision.action == "applied" and decision.reason:
        return name, "as before", "", decision.reason
    return None


def _change(layout: Layout | None) -> str:
    return "" if layout is None else f"{layout.old} → {layout.new}"
