"""Reports as pages: one file each, with everything in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spdify.reporting.budgets import budget_columns, budget_lines, budget_rows
from spdify.reporting.channels import CHANNEL_COLUMNS, MODULE_COLUMNS, channel_rows, module_rows
from spdify.reporting.decisions import COMPARED_COLUMNS, compared_rows
from spdify.reporting.figures import change, inputs_text, quantity
from spdify.reporting.markdown import headline, overlaps, report_markdown, total_rows
from spdify.reporting.network_pictures import depth_chart
from spdify.reporting.network_section import network_rows, stage_bars
from spdify.reporting.pairs import both_inputs, depth_of, is_related, pairs_of, stages_of
from spdify.reporting.proof_section import proof_of
from spdify.reporting.rendering import Table, render
from spdify.reporting.sites_section import kernel_rows, read_bars, site_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.records import BundleRecord, Report

CHANGED = "Its weights have changed since then: it no longer computes what the original does."
WORDS = {
    "passed": {"sign": "✓", "style": "good"},
    "failed": {"sign": "✗", "style": "bad"},
    "measured": {"sign": "≈", "style": "seen"},
    "not run": {"sign": "–", "style": "open"},  # noqa: RUF001 - a dash
}


@dataclass(frozen=True)
class Section:
    """Lines and tables under a title."""

    id: str
    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()


def report_files(report: Report, record: BundleRecord | None = None) -> dict[str, str]:
    """Give the texts of a report's files by name: Markdown, and a page."""
    return {"report.md": report_markdown(report), "report.html": report_page(report, record)}


def report_page(report: Report, record: BundleRecord | None = None) -> str:
    """Give a report as a page.

    Args:
        report: Any report; of an earlier release, without what it does not hold.
        record: Of the bundle that it lies in: adds what became of the network since.
    """
    inputs, _ = both_inputs(report)
    pairs = pairs_of(report)
    related = is_related(report)
    stages = stages_of(pairs, inputs, related=related)
    sides = sides_of(report)
    ids = {decision.site.name: f"site-{i}" for i, decision in enumerate(report.decisions)}
    kernels = kernel_rows(report, ids)
    since = _since(record)
    changed = CHANGED if since is not None else ""
    answer = f"{report.model}: {headline(report)} {changed}".strip()
    context: dict[str, Any] = {
        "title": answer,
        "report": report,
        "sides": sides,
        "related": related,
        "answer": answer,
        "inputs": inputs_text(inputs) if inputs is not None else "",
        "tiles": _tiles(report),
        "words": WORDS,
        "proof": proof_of(report, record, ids, since=changed),
        "since": since,
        "since_words": f"The proofs above are of the conversion. {changed}",
        "network": network_rows(report, pairs, stages, ids),
        "marks": bool(report.decisions),
        "depth": Markup(depth_chart(report.model, depth_of(report, pairs, stages), sides)) if pairs else "",  # noqa: S704
        "stages": stage_bars(stages),
        "reads": read_bars(report, ids),
        "sites": site_rows(report, ids, {kernel["name"]: kernel["id"] for kernel in kernels}),
        "overlaps": overlaps(report),
        "kernels": kernels,
        "further": _further(report),
        "command": report.origin.command if report.origin else record.command if record else "",
        "facts": _facts(report, record),
    }
    context["sections"] = _contents(context)
    return render("report.html", context)


def sides_of(report: Report) -> tuple[str, str]:
    """Give what the two sides are called: before and after, or the names of two networks."""
    names = report.model.split(" → ")
    return (names[0], names[1]) if not report.decisions and len(names) == 2 else ("before", "after")  # noqa: PLR2004


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the sections that there are."""
    report = context["report"]
    found = [
        ("proof", "Proof", report.decisions or report.checks),
        ("since", "Since then", context["since"]),
        ("network", "Network", context["network"]),
        ("depth", "Depth", context["network"]),
        ("stages", "Stages", context["network"]),
        ("reads", "What is read", context["reads"]),
        ("sites", "Sites", context["sites"]),
        ("kernels", "Weights", context["kernels"]),
        *((section.id, section.title, True) for section in context["further"]),
        ("reproduce", "Make it again", True),
    ]
    return [(where, name) for where, name, there in found if there]


def _tiles(report: Report) -> list[dict[str, str]]:
    """Give the totals; FLOPs are twice the MACs and have no tile."""
    fields = {
        "parameters": "params",
        "MACs": "macs",
        "activation memory": "activation_bytes",
        "weights file": "weight_bytes",
    }
    tiles = [
        {
            "name": name, "before": before, "after": after, "change": changed,
            "before_path": f"before.{fields[name]}", "after_path": f"after.{fields[name]}",
        }
        for name, before, after, changed in total_rows(report)
        if name in fields
    ]  # fmt: skip
    found = report.budget.latency if report.budget is not None else None
    latency = {"name": "latency", "before_path": "", "change": "not measured", "before": "spdify bench measures it"}
    if found is not None:
        spread = f"quartiles {change(1, found.low)} to {change(1, found.high)}, deployed form, {found.device}"
        latency |= {"change": change(1, found.ratio), "before": spread}
    return [*tiles, latency]


def _since(record: BundleRecord | None) -> Table | None:
    """List the trainings and calibrations that came after the conversion that is reported."""
    if record is None:
        return None
    converted = max((i for i, plan in enumerate(record.plans) if plan.decisions), default=-1)
    rows = []
    for training in (one for one in record.trainings if one.epoch and one.plans > converted):
        found = [(name, one) for name, one in (("validation", training.validation), ("test", training.test)) if one]
        words = ", ".join(f"{name} top-1 {one.top1:.2%}, loss {one.loss:.4f}" for name, one in found)
        rows.append((f"training, recipe {training.recipe.name}", training.data.name, f"epoch {training.epoch}", words))
    for made in (one for one in record.calibrations if one.plans is None or one.plans > converted):
        words = f"error against the original {made.before:.2g} before, {made.after:.2g} after"
        rows.append(("calibration", made.data, f"{made.images:,} images", words))
    return Table("What became of it since", ("what", "data", "how much", "came to"), rows) if rows else None


def _further(report: Report) -> list[Section]:
    sections = []
    if report.compared:
        table = Table("What was done at each site", COMPARED_COLUMNS, compared_rows(report.compared))
        words = "What was done at each site of the network that both were made from."
        sections.append(Section("compared", "Sites in both", [words], [table]))
    if report.budget is not None:
        head = budget_columns(report.budget)
        table = Table("What a budget could buy", head, budget_rows(report.budget), numbers=head[3:-1])
        sections.append(Section("budget", "Budget", budget_lines(report.budget), [table]))
    channels = channel_rows(report)
    if channels or report.adjustments:
        tables = [Table("Where a change of channels went", CHANNEL_COLUMNS, channels)] if channels else []
        if report.adjustments:
            caption = "Modules that follow."
            tables.append(Table("Modules that follow", MODULE_COLUMNS, module_rows(report), caption=caption))
        sections.append(Section("channels", "Channels", tables=tables))
    if report.left_alone:
        rows = [(item.path or "(model)", item.operator, item.reason) for item in report.left_alone]
        table = Table("Left alone", ("path", "operator", "why"), rows)
        sections.append(Section("left", "Left alone", ["Shrinks or pools, and is no site."], [table]))
    return sections


def _facts(report: Report, record: BundleRecord | None) -> list[tuple[str, str]]:
    """List what the numbers depend on."""
    facts = [("rulebook", report.rulebook)] if report.decisions else []
    origin = report.origin
    if origin is not None:
        names = sides_of(report) if len(origin.sources) > 1 else ("source", "")
        later = origin.later or ("",) * len(origin.sources)
        for name, source, inputs, words in zip(names, origin.sources, origin.inputs, later, strict=False):
            then = f"; then {words}" if words else ""
            facts.append((name, f"{source.spec}, weights: {source.weights}{then}; inputs {inputs_text(inputs)}"))
        facts.append(("seed", str(origin.seed)))
    versions = origin.versions if origin is not None else record.versions if record is not None else {}
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    if report.seconds is not None:
        facts.append(("took", f"{report.seconds:.1f} s"))
    if report.peak_memory_bytes is not None:
        facts.append(("largest memory", quantity(report.peak_memory_bytes, "B")))
    return facts
