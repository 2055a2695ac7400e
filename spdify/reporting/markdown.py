"""The report as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from textwrap import wrap
from typing import TYPE_CHECKING

from spdify.reporting.budgets import budget_columns, budget_lines, budget_rows
from spdify.reporting.channels import CHANNEL_COLUMNS, MODULE_COLUMNS, channel_rows, module_rows
from spdify.reporting.decisions import COMPARED_COLUMNS, compared_rows
from spdify.reporting.figures import change, quantity, shape
from spdify.rulebook import split_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spdify.records import Check, Decision, Operator, Report, Site, SiteCost


#: What a check is about, by the beginning of its name.
MEANINGS = {
    "two eyes": "sites that the torch.fx trace and a census of a real forward pass both see",
    "nothing else left": "sites that still downsample (kept or refused)",
    "untouched names": "tensors outside the sites",
    "site": "one site on its own in float64, outputs and gradients",
    "carried": "a module that follows a change of channels, before and after, on its own",
    "whole model": "float64, random norms and gains",
    "statistics": "buffers after a training step",
    "live sites": "how far random weights in the least visible site move the output; here the limit is the least",
    "gradients": "one reaches every new parameter",
    "own weights": "the network as it is",
    "onnx checker": "the file is valid ONNX",
    "onnx batch": "ONNX Runtime against PyTorch",
    "onnx perturbed weights": "the same, with the random norms",
    "dynamic batch": "the file takes any batch size",
}
LEGEND = wrap(
    "Figures are largest differences relative to the largest value, unless said otherwise here. "
    + " ".join(f"*{name[0].upper()}{name[1:]}*: {words}." for name, words in MEANINGS.items()).replace("Onnx", "ONNX"),
    width=118,
)


OPERATORS: dict[Operator, str] = {
    "conv": "strided convolution", "max_pool": "max pool", "avg_pool": "average pool", "blur_pool": "blur pool",
    "slice": "subsampling slice", "stage_end": "stage end", "block_end": "block end", "input": "input",
    "pyramid": "feature pyramid",
}  # fmt: skip
MAX_OVERLAPS = 3  # sites that are named; all are in the JSON


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int) -> list[str]:
    """Give a Markdown table; columns from `numbers_from` on are aligned right."""
    marks = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, marks, *cells)]


def total_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Give name, before, after and change of each total."""
    pairs = [
        ("parameters", report.before.params, report.after.params, ""),
        ("MACs", report.before.macs, report.after.macs, ""),
        ("FLOPs (2 per MAC)", report.before.flops, report.after.flops, ""),
        ("activation memory", report.before.activation_bytes, report.after.activation_bytes, "B"),
        ("weights file", report.before.weight_bytes, report.after.weight_bytes, "B"),
    ]
    return [(name, quantity(a, unit), quantity(b, unit), change(a, b)) for name, a, b, unit in pairs]


def report_markdown(report: Report) -> str:
    """Give the whole report; the totals, every decision with its cost, what is left alone, and every check."""
    lines = [f"# {report.model}{f', {report.rulebook}' if report.decisions else ''}", "", headline(report), ""]
    lines += [*(f"Scaled first: {words}." for words in report.scaling), ""] if report.scaling else []
    lines += ["## Totals", ""]
    lines += table(["", "before", "after", "change"], total_rows(report), numbers_from=1)
    lines += [
        "",
        "One forward pass at batch 1; 1 MAC = 2 FLOPs, counted as `torch.utils.flop_counter` does (convolutions,",
        "matrix products, attention; pools and element-wise operators count nothing). Activation memory: bytes of all",
        "operator outputs, views not counted.",
    ]
    if report.decisions:
        lines += ["", "## Sites", "", *_sites(report)]
    if report.compared:
        lines += ["", "## Sites in both", ""]
        lines += table(COMPARED_COLUMNS, compared_rows(report.compared), numbers_from=len(COMPARED_COLUMNS))
    if report.budget is not None:
        head, rows = budget_columns(report.budget), budget_rows(report.budget)
        lines += ["", "## Budget", "", *(f"- {line}" for line in budget_lines(report.budget)), ""]
        lines += table(head, rows, numbers_from=3)
    if channels := channel_rows(report):
        lines += ["", "## Channels", "", *table(CHANNEL_COLUMNS, channels, numbers_from=4)]
    if report.adjustments:
        lines += ["", "Modules that follow:", "", *table(MODULE_COLUMNS, module_rows(report), numbers_from=3)]
    if report.left_alone:
        lines += ["", "## Left alone", ""]
        rows = [(x.path, x.operator, x.reason) for x in report.left_alone]
        lines += table(["path", "operator", "reason"], rows, numbers_from=3)
    if report.checks:
        lines += ["", f"## Checks (proof level {report.proof})", ""]
        checks = [(c.name, c.outcome, c.detail, *check_figures(c)) for c in report.checks]
        lines += table(["check", "outcome", "detail", "figure", "limit"], checks, numbers_from=3)
        lines += ["", *LEGEND]
    return "\n".join(lines) + "\n"


def headline(report: Report) -> str:
    """Give the answer in one line."""
    by = {a: sum(d.action == a for d in report.decisions) for a in ("applied", "kept", "refused")}
    params = change(report.before.params, report.after.params)
    cost = f"parameters {params}, MACs {change(report.before.macs, report.after.macs)}"
    if not report.decisions:
        return f"{cost}."
    kinds = {d.claim.value for d in report.decisions if d.claim is not None}
    value = _sameness(report) if kinds == {"exact"} else " and ".join(sorted(kinds)) or "unchanged"
    away = next((c.value for c in report.checks if c.name == "distance to the original"), None)
    value += f", {away:.2g} from the original's output" if away is not None else ""
    return f"{_done(report)} ({value}), {by['kept']} kept, {by['refused']} refused; {cost}."


def _done(report: Report) -> str:
    """Name what was replaced and where blocks were added: 7 strided convolutions and 1 max pool replaced."""
    applied = [d.site for d in report.decisions if d.action == "applied"]
    replaced = _counted(_operator(site) for site in applied if not site.inserted)
    added = _counted(_operator(site) for site in applied if site.inserted)
    words = [f"{replaced} replaced"] if replaced else []
    words += [f"a block added at {added}"] if added else []
    return ", ".join(words)[:1].upper() + ", ".join(words)[1:] if words else "Nothing replaced"


def _operator(site: Site) -> str:
    return "convolution" if site.kind == "convolution" else OPERATORS[site.operator]


def _counted(names: Iterable[str]) -> str:
    named = [f"{count} {name}{'s' * (count != 1)}" for name, count in Counter(names).items()]
    return f"{', '.join(named[:-1])}{' and ' * (len(named) > 1)}{named[-1]}" if named else ""


def _sameness(report: Report) -> str:
    """Say how well it is proved that the function is the same."""
    if not report.checks:
        return "same function by claim, not proved here"
    if away := [c.value for c in report.checks if is_scaling(c) and c.outcome == "measured" and c.value is not None]:
        return f"another function, since it was scaled first: {max(away):.2g} away"
    error = _proved(report)
    if error is None:
        return "same function, proved site by site"
    return f"same function to {error:.0e}" if error else "same function, no difference at all"


def is_scaling(check: Check) -> bool:
    """Whether a check is about a scaling before the rules, of the whole network."""
    step, separator, what = check.name.rpartition(": ")
    return bool(separator) and step.startswith("scaled") and what.startswith("whole model")


def _proved(report: Report) -> float | None:
    """Give the largest error of the whole-model checks that passed, of scalings too; None where the rules' own did not.

    Both steps together may be off by the sum, which is as large for all that one digit says.
    """
    named = [c for c in report.checks if c.outcome == "passed"]
    if not any(c.name.startswith("whole model") for c in named):
        return None
    whole = [c for c in named if c.name.startswith("whole model") or is_scaling(c)]
    return max((c.value for c in whole if c.value is not None), default=None)


def meaning(check: str) -> str:
    """Say what a check is about; nothing where its name says it."""
    _, _, name = check.rpartition(": ")
    return next((words for start, words in MEANINGS.items() if name.startswith(start)), "")


def check_figures(check: Check) -> tuple[str, str]:
    """Give a check's figure and what it allows."""

    def text(number: float | None) -> str:
        if number is None:
            return ""
        return f"{number:.0f}" if math.isfinite(number) and number == int(number) else f"{number:.1e}"

    return text(check.value), text(check.tolerance)


def site_row(decision: Decision, cost: SiteCost | None) -> tuple[str, ...]:
    """Give one decision: site, what it is, what is done, shapes, parameters and MACs before → after."""
    site = decision.site
    done: str = decision.action
    if decision.action == "applied" and decision.claim is not None:
        done = f"{decision.rewrite} ({decision.claim.value})"
    elif decision.reason:
        done = f"{decision.action}: {decision.reason}"
    figures = ("", "")
    if cost is not None:
        figures = (
            f"{quantity(cost.before.params)} → {quantity(cost.after.params)}",
            f"{quantity(cost.before.macs)} → {quantity(cost.after.macs)}",
        )
    return site.name, site.window, shape(site.calls), done, *figures


def _sites(report: Report) -> list[str]:
    costs = {cost.name: cost for cost in report.sites}
    rows = [site_row(d, costs.get(d.site.name)) for d in report.decisions]
    text = overlaps(report)
    sites = table(["site", "operator", "shape", "decision", "parameters", "MACs"], rows, numbers_from=4)
    return [*sites, *(["", text] if text else [])]


def overlaps(report: Report) -> str:
    """Say in one line which sites a later rulebook has a rule for too; empty where there are none.

    Rules of one book that overlap are how books are written: special cases first.
    """
    found = [(d.site.name, d.rule, later) for d in report.decisions if d.rule and (later := _from_a_later_book(d))]
    if not found:
        return ""
    shown = [f"{name} ({rule} before {later})" for name, rule, later in found[:MAX_OVERLAPS]]
    words = ", ".join(shown) + ("." if len(found) == len(shown) else ", …")
    sites = "1 site is" if len(found) == 1 else f"{len(found)} sites are"
    return f"{sites} matched by a later rulebook too; the first wins: {words}"


def _from_a_later_book(decision: Decision) -> str | None:
    """Give the first further rule from another book than the one that decides."""
    book, _ = split_name(decision.rule or "")
    return next((rule for rule in decision.also_matched if split_name(rule)[0] != book), None)
