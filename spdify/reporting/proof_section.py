"""What a report's page says of the proofs, and of what is not proved."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spdify.reporting.markdown import check_figures, meaning
from spdify.reporting.network_pictures import error_meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spdify.records import BundleRecord, Check, Report

LEAST_IS_GOOD = ("live sites",)  # checks whose limit is the least
FEW = 12  # single sites or modules that are shown when the page opens
FOLDED = {
    "site": "Each site on its own, in float64: outputs and gradients, with random weights and odd sizes",
    "carried": "Each module that more channels reach, on its own, in float64",
}


@dataclass(frozen=True)
class Fold:
    """Checks of single sites, or of single modules."""

    id: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    open: bool


@dataclass(frozen=True)
class Proof:
    """What was checked: in words, the checks of the whole, those of single sites and modules, and what stays open."""

    lines: Sequence[str]
    checks: Sequence[Mapping[str, Any]]
    folds: Sequence[Fold]
    open: Sequence[str]


def proof_of(report: Report, record: BundleRecord | None, ids: Mapping[str, str], *, since: str = "") -> Proof:
    """Put the checks in order.

    Args:
        report: The report.
        record: Of its bundle.
        ids: On the page, of the sites by name.
        since: What has changed the weights since, in words.
    """
    whole: list[dict[str, Any]] = []
    single: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FOLDED}
    for index, check in enumerate(report.checks):
        step, separator, what = check.name.rpartition(": ")
        kind, _, name = what.partition(" ")
        row = _row(index, check)
        if kind in single:
            link = ids.get(name, "") if kind == "site" else ""
            single[kind].append(row | {"name": f"{step}{separator}{name}", "link": link, "words": check.detail})
        else:
            whole.append(row)
    folds = [
        Fold(f"{kind}-errors", f"{FOLDED[kind]} ({_tally(row['outcome'] for row in rows)})", rows, len(rows) <= FEW)
        for kind, rows in single.items()
        if rows
    ]
    return Proof(_proved(report), whole, folds, _not_proved(report, record, since))


def _tally(outcomes: Iterable[str]) -> str:
    """Count outcomes: 2 passed, 1 measured."""
    return ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes).items())


def _row(index: int, check: Check) -> dict[str, Any]:
    figure, limit = check_figures(check)
    return {
        "name": check.name, "outcome": check.outcome, "figure": figure, "limit": limit, "path": f"checks.{index}.value",
        "meter": _meter(check), "words": check.detail or meaning(check.name),
    }  # fmt: skip


def _meter(check: Check) -> str:
    if check.value is None or check.tolerance is None or not math.isfinite(check.value):
        return ""
    drawn = error_meter(check.value, check.tolerance, reversed_limit=check.name in LEAST_IS_GOOD)
    return Markup(drawn)  # noqa: S704 - numbers alone


def _proved(report: Report) -> list[str]:
    if not report.checks:
        return ["Nothing: what stands here is claimed by the rewrites and was not run. spdify convert proves it."]
    sites = [check.outcome for check in report.checks if check.name.startswith("site ")]
    count = sum(outcome == "passed" for outcome in sites)
    alone = "Every site was proved on its own, in float64."
    if count < len(sites):
        alone = f"{count} of {len(sites)} sites were proved, each on its own, in float64."
    passed = {check.name for check in report.checks if check.outcome == "passed"}
    modes = [mode for mode in ("eval", "train") if f"whole model, {mode}" in passed]
    if not modes:
        return [f"{alone} The network as a whole was not compared in float64."]
    drawn = "with every norm, gain and zero-initialised parameter drawn at random"
    how = f"in {' and in '.join(modes)} mode, {drawn}"
    lines = [f"{alone} The network as a whole was run in float64 before and after, {how}."]
    if any(d.claim is not None and d.claim.value != "exact" for d in report.decisions if d.action == "applied"):
        lines.append("Sites that are not exact were put into both networks for that, so that the rest is proved.")
    if report.scaling:
        lines.append("Before and after the rules, that is: the scaling came first, and has checks of its own below.")
    return lines


def _not_proved(report: Report, record: BundleRecord | None, since: str) -> list[str]:
    """Say what nobody should take for proved: first what came later, and what was checked and did not pass."""
    bad = [check for check in report.checks if check.outcome in {"failed", "not run"}]
    words = [since] if since else []
    words += [
        f"{check.name}: {check_figures(check)[0]}, measured and not asserted. {check.detail}".strip()
        for check in report.checks
        if check.outcome == "measured"
    ]
    for (outcome, detail), alike in groupby(bad, key=lambda check: (check.outcome, check.detail)):
        names = "; ".join(check.name for check in alike)
        words.append(f"{names}: {outcome}. {detail}".strip())
    words += [
        f"{d.site.name}: {d.claim.value}. {d.claim.training}." for d in report.decisions
        if d.action == "applied" and d.claim is not None and d.claim.value != "exact"
    ]  # fmt: skip
    words += [f"{d.site.name} stays as it was: {d.reason}." for d in report.decisions if d.action == "refused"]
    exported = record.onnx is not None if record is not None else any(c.name.startswith("onnx") for c in report.checks)
    if report.checks and not exported:
        words.append("There is no ONNX file to compare.")
    words.append(
        "Exact means: the same function for finite inputs, to rounding. An infinite input, or one that is no number, "
        "reaches more outputs than before."
    )
    words.append("What training will make of the new weights: the proofs are of the start.")
    return words
