"""What a report's page says of the sites: what they read, the table, where their weights went."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spdify.reporting.bars import Bars, Quantities, make_bars
from spdify.reporting.decisions import chosen_params
from spdify.reporting.figures import change, percent, quantity, shape
from spdify.reporting.network_pictures import kernel_picture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.records import Decision, Kernel, Measure, Report

ACTIONS = {"applied": ("◆", "good", "changed"), "kept": ("○", "open", "kept"), "refused": ("✗", "open", "refused")}


def read_bars(report: Report, ids: Mapping[str, str]) -> Bars | None:
    """Give the share of positions that each site reads, before and after."""
    measured = {cost.name: (i, cost.positions_read) for i, cost in enumerate(report.sites)}
    rows = []
    for decision in (d for d in report.decisions if d.site.kind == "downsampling"):
        index, after = measured.get(decision.site.name, (0, None))
        path = "" if after is None else f"sites.{index}.positions_read"
        name = decision.site.name
        rows.append(Quantities(name, decision.site.positions_read, after, ids[name], path))
    return make_bars("Positions read.", rows, percent) if rows else None


def site_rows(report: Report, ids: Mapping[str, str], kernels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give the rows of the table of sites.

    Args:
        report: The report.
        ids: On the page, of the sites by name.
        kernels: Likewise, of their kernels' pictures.
    """
    indices = {cost.name: i for i, cost in enumerate(report.sites)}
    return [_site(report, d, indices.get(d.site.name), ids, kernels) for d in report.decisions]


def _site(
    report: Report, decision: Decision, index: int | None, ids: Mapping[str, str], kernels: Mapping[str, str]
) -> dict[str, Any]:
    site, cost = decision.site, None if index is None else report.sites[index]
    sign, colour, style = ACTIONS[decision.action]
    before = site.positions_read if site.kind == "downsampling" else None
    after = cost.positions_read if cost is not None else None
    reads = [percent(share) for share in (before, after) if share is not None]
    row = {
        "id": ids[site.name], "name": site.name, "shape": shape(site.calls), "operator": site.window,
        "action": decision.action, "sign": sign, "action_style": colour, "style": style,
        "rule": decision.rule or "", "rewrite": decision.rewrite or "", "reason": decision.reason,
        "params": ", ".join(f"{key} {value}" for key, value in chosen_params(decision).items()),
        "claim": decision.claim.value if decision.claim else "",
        "training": decision.claim.training if decision.claim else "", "kernel": kernels.get(site.name, ""),
        "reads": reads, "reads_number": 1.0 if before is None else before, "cost_path": "", "params_change": 0,
        "macs_change": 0,
    }  # fmt: skip
    if cost is None:
        return row
    return row | {
        "cost_path": f"sites.{index}",
        **_cost("params", cost.before, cost.after),
        **_cost("macs", cost.before, cost.after),
    }


def _cost(what: str, before: Measure, after: Measure) -> dict[str, Any]:
    a, b = getattr(before, what), getattr(after, what)
    return {
        f"{what}_before": quantity(a), f"{what}_after": quantity(b), f"{what}_text": change(a, b),
        f"{what}_change": b - a,
    }  # fmt: skip


def kernel_rows(report: Report, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give the pictures of kernels, in the order of the sites: the stem comes first."""
    windows = {decision.site.name: decision.site.window for decision in report.decisions}
    shown = []
    for kernel in report.kernels:
        if kernel.site in ids:
            words = _kernel_words(kernel)
            label = f"{kernel.site}, {windows[kernel.site]}. {words}"
            shown.append(
                {
                    "id": ids[kernel.site].replace("site", "kernel"), "site": ids[kernel.site], "name": kernel.site,
                    "operator": windows[kernel.site], "words": words,
                    "picture": Markup(kernel_picture(kernel, label)),  # noqa: S704 - escapes what it is given
                }
            )  # fmt: skip
    return shown


def _window_words(kernel: Kernel) -> str:
    """Say how a window without weights lies in the phases."""
    (after,) = kernel.after
    inside = sum(origin >= 0 for origin in after.origins)
    rest = len(after.origins) - inside
    words = f"A window without weights: its {inside} positions as they lie in the phases"
    return f"{words}; the other {rest} places are outside of it." if rest else f"{words}."


def _kernel_words(kernel: Kernel) -> str:
    if not kernel.before.tensor:
        return _window_words(kernel)
    taps = len(kernel.before.origins)
    each = f"each of the {taps} taps" if taps > 1 else "the one tap"
    words = []
    for after in kernel.after:
        name = f"{after.tensor}: " if after.tensor else ""
        moved = len({origin for origin in after.origins if origin >= 0})
        fresh, places = sum(after.fresh), len(after.origins)
        new = places - sum(origin >= 0 for origin in after.origins) - fresh
        if moved == places == taps and math.prod(after.scale) == 1:
            words.append(f"{name}stays as it is.")
        elif moved:
            kind = f"{new} of {places} places are new and start at zero" if new else "no place is new"
            words.append(f"{name}{each} lies at one place of {math.prod(after.scale)} phases; {kind}.")
        else:
            words.append(f"{name}new: {fresh} of {places} places start at one, the others at zero.")
    if not any(math.prod(after.scale) > 1 for after in kernel.after):
        words.append("It runs at every position, and space-to-depth comes behind it.")
    return " ".join(words)
