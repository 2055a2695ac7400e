"""Reports as pages: one file each, with everything in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spdify.reporting.budgets import budget_columns, budget_lines, budget_rows
from spdify.reporting.channels import CHANNEL_COLUMNS, MODULE_COLUMNS, channel_rows, module_rows
from spdify.reporting.decisions import COMPARED_COLUMNS, chosen_params, compared_rows
from spdify.reporting.figures import change, inputs_text, percent, quantity, shape
from spdify.reporting.markdown import check_figures, headline, meaning, overlaps, report_markdown, total_rows
from spdify.reporting.network_pictures import depth_chart, error_meter, kernel_picture
from spdify.reporting.pairs import both_inputs, depth_of, is_related, pairs_of, stages_of
from spdify.reporting.rendering import Table, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spdify.records import BundleRecord, Check, Decision, Kernel, Measure, Part, Report
    from spdify.reporting.pairs import Pair, Stage

OPEN_ROWS = 24  # of the network, shown when the page opens
LEAST_IS_GOOD = ("live sites",)  # checks whose limit is the least
WORDS = {
    "passed": {"sign": "✓", "style": "good"},
    "failed": {"sign": "✗", "style": "bad"},
    "measured": {"sign": "≈", "style": "seen"},
    "not run": {"sign": "–", "style": "open"},  # noqa: RUF001 - a dash
}
ACTIONS = {"applied": ("◆", "good"), "kept": ("○", "open"), "refused": ("✗", "open")}
STYLES = {"applied": "changed", "kept": "kept", "refused": "refused"}


@dataclass(frozen=True)
class BarRow:
    """A quantity before and after, as texts, as lengths in percent, and where it stands in the report."""

    name: str
    before: str
    after: str
    before_width: float
    after_width: float
    before_path: str = ""
    after_path: str = ""
    link: str = ""


@dataclass(frozen=True)
class Bars:
    """A table with a pair of bars in each row."""

    caption: str
    rows: Sequence[BarRow]


@dataclass(frozen=True)
class Section:
    """Lines and tables under a title."""

    id: str
    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Proof:
    """What was checked: in words, all that is not about single sites, single sites, and what stays open."""

    lines: Sequence[str] = ()
    groups: Sequence[Mapping[str, Any]] = ()
    sites: Sequence[Mapping[str, Any]] = ()
    open: Sequence[str] = field(default_factory=tuple)


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
    stages = stages_of(pairs, inputs, related=is_related(report))
    sides = sides_of(report)
    ids = {decision.site.name: f"site-{i}" for i, decision in enumerate(report.decisions)}
    kernels = _kernels(report, ids)
    context: dict[str, Any] = {
        "title": f"{report.model}: {headline(report)}",
        "report": report,
        "sides": sides,
        "related": is_related(report),
        "answer": f"{report.model}: {headline(report)}",
        "inputs": inputs_text(inputs) if inputs is not None else "",
        "tiles": _tiles(report),
        "words": WORDS,
        "proof": _proof(report, record, ids),
        "since": _since(record),
        "network": _network(report, pairs, stages, ids),
        "marks": bool(report.decisions),
        "depth": Markup(depth_chart(report.model, depth_of(report, pairs, stages), sides)) if pairs else "",  # noqa: S704
        "stages": _stage_bars(stages),
        "reads": _reads(report, ids),
        "sites": _sites(report, ids, {kernel["name"]: kernel["id"] for kernel in kernels}),
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


def _proof(report: Report, record: BundleRecord | None, ids: Mapping[str, str]) -> Proof:
    groups: list[dict[str, Any]] = []
    sites: list[dict[str, Any]] = []
    words = _open_words(report, record)
    for index, check in enumerate(report.checks):
        figure, limit = check_figures(check)
        step, separator, what = check.name.rpartition(": ")
        kind, _, name = what.partition(" ")
        row = {
            "name": f"{step}{separator}{name}" if kind in {"site", "carried"} else check.name, "outcome": check.outcome,
            "figure": figure, "limit": limit, "path": f"checks.{index}.value", "meter": _meter(check),
            "words": check.detail or ("" if kind == "site" else meaning(check.name)),
            "link": ids.get(name, "") if kind == "site" else "",
        }  # fmt: skip
        (sites if kind == "site" else groups).append(row)
        if check.outcome in {"not run", "failed"}:
            words.insert(0, f"{check.name}: {check.outcome}. {check.detail}".strip())
    return Proof(lines=_proof_words(report), groups=groups, sites=sites, open=words)


def _meter(check: Check) -> str:
    if check.value is None or check.tolerance is None or not math.isfinite(check.value):
        return ""
    drawn = error_meter(check.value, check.tolerance, reversed_limit=check.name in LEAST_IS_GOOD)
    return Markup(drawn)  # noqa: S704 - numbers alone


def _proof_words(report: Report) -> list[str]:
    levels = {
        "model": "Every site was proved on its own, and the network as a whole was run in float64 before and after, in "
        "eval and in train mode, with every norm, gain and zero-initialised parameter drawn at random.",
        "site": "Every site was proved on its own, in float64. The network as a whole was not run in float64.",
    }
    if not report.checks:
        return ["Nothing: what stands here is claimed by the rewrites and was not run. spdify convert proves it."]
    return [levels[report.proof]] if report.proof in levels else []


def _open_words(report: Report, record: BundleRecord | None) -> list[str]:
    """Say what nobody should take for proved."""
    words = [
        f"{d.site.name}: {d.claim.value}. {d.claim.training}." for d in report.decisions
        if d.action == "applied" and d.claim is not None and d.claim.value != "exact"
    ]  # fmt: skip
    words += [f"{d.site.name} stays as it was: {d.reason}." for d in report.decisions if d.action == "refused"]
    if record is not None and record.onnx is None:
        words.append("There is no ONNX file to compare.")
    if report.checks and not any(check.name.startswith("onnx") for check in report.checks) and record is None:
        words.append("An ONNX file was not compared here.")
    words.append(
        "Exact means: the same function for finite inputs, to rounding. An infinite input, or one that is no number, "
        "reaches more outputs than before."
    )
    words.append("What training will make of the new weights: the proofs are of the start.")
    return words


def _since(record: BundleRecord | None) -> Table | None:
    """List trainings and calibrations."""
    if record is None or not (record.trainings or record.calibrations):
        return None
    rows = []
    for training in record.trainings:
        found = [(name, one) for name, one in (("validation", training.validation), ("test", training.test)) if one]
        words = ", ".join(f"{name} top-1 {one.top1:.2%}, loss {one.loss:.4f}" for name, one in found)
        rows.append((f"training, recipe {training.recipe.name}", training.data.name, f"epoch {training.epoch}", words))
    for made in record.calibrations:
        words = f"error against the original {made.before:.2g} before, {made.after:.2g} after"
        rows.append(("calibration", made.data, f"{made.images:,} images", words))
    return Table("What became of it since", ("what", "data", "how much", "came to"), rows)


def _network(
    report: Report, pairs: Sequence[Pair], stages: Sequence[Stage], ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Give the stages with their parts side by side."""
    if not report.parts_after:
        return []
    marked = {id(pair): _mark(report, pair, ids) for pair in pairs}
    shown, rows = [], 0
    for number, stage in enumerate(stages):
        parts = [_row(pair, marked[id(pair)]) for pair in stage.pairs if not _says_nothing(pair, marked[id(pair)])]
        changed = sum(part["style"] == "changed" for part in parts)
        opened = any(part["mark"] for part in parts) and rows + len(parts) <= OPEN_ROWS
        rows += len(parts) * opened
        shapes = [shape for pair in stage.pairs[-1:] if (shape := _shape(pair.part))]
        count = f"{len(parts)} block{'s' * (len(parts) != 1)}"
        shown.append(
            {
                "id": f"stage-{number}", "name": stage.name, "open": opened, "parts": parts, "changed": changed,
                "differs": sum(part["style"] == "follows" for part in parts),
                "stays": sum(part["style"] in {"kept", "refused"} for part in parts), "count": count,
                "shape": shapes[0] if shapes else "", "params": _arrow(stage, "params"), "macs": _arrow(stage, "macs"),
            }
        )  # fmt: skip
    return shown


def _arrow(stage: Stage, what: str) -> str:
    before, after = stage.total("before", what), stage.total("after", what)
    return quantity(before) if before == after else f"{quantity(before)} → {quantity(after)} ({change(before, after)})"


def _says_nothing(pair: Pair, mark: Mapping[str, Any]) -> bool:
    """Whether a part is there for its name alone: an identity or dropout that costs nothing before and after."""
    sides = [part for part in (pair.before, pair.after) if part is not None]
    idle = all(part.type_name in {"Identity", "Dropout"} for part in sides)
    return idle and not mark["mark"]


def _row(pair: Pair, mark: Mapping[str, Any]) -> dict[str, Any]:
    before = _part(pair.before, pair.before_index, "parts_before")
    same = not mark["mark"]
    return {"before": before, "after": _part(pair.after, pair.after_index, "parts_after"), "same": same, **mark}


def _part(part: Part | None, index: int | None, where: str) -> dict[str, str] | None:
    if part is None:
        return None
    return {
        "name": part.path or "(the network itself)", "type_name": part.type_name, "shape": _shape(part),
        "params": quantity(part.params), "macs": quantity(part.macs), "params_path": f"{where}.{index}.params",
        "macs_path": f"{where}.{index}.macs",
    }  # fmt: skip


def _shape(part: Part) -> str:
    return "" if part.output is None else "×".join(map(str, part.output[1:]))


def _mark(report: Report, pair: Pair, ids: Mapping[str, str]) -> dict[str, Any]:
    """Say what happened to a part, with links to the sites."""
    inside = [d for d in report.decisions if pair.holds(d.site)] if pair.part.path else []
    for action, words in (("applied", "◆ changed"), ("refused", "○ refused"), ("kept", "○ kept")):
        links = [(ids[d.site.name], d.site.name) for d in inside if d.action == action]
        if links:
            style = ACTIONS[action][1]
            return {"mark": words, "mark_style": style, "style": STYLES[action], "links": links}
    words = style = ""
    if pair.before is None or pair.after is None:
        there, gone = ("＋ added", "− taken out") if report.decisions else ("◇ only here", "◇ only here")  # noqa: RUF001
        words, style = (there if pair.before is None else gone), "seen"
    elif any(a.path == pair.part.path or a.path.startswith(f"{pair.part.path}.") for a in report.adjustments):
        words, style = "◇ follows", "seen"
    elif _differs(pair.before, pair.after):
        words, style = "◇ differs", "seen"
    return {"mark": words, "mark_style": style, "style": "follows" if words else "", "links": []}


def _differs(before: Part, after: Part) -> bool:
    def seen(part: Part) -> tuple[Any, ...]:
        return part.path, part.type_name, part.output, part.params, part.macs

    return seen(before) != seen(after)


def _stage_bars(stages: Sequence[Stage]) -> list[Bars]:
    return [
        _bars(f"{words} of each stage.", [
            (stage.name, stage.total("before", what), stage.total("after", what), "") for stage in stages
        ], quantity)
        for words, what in (("MACs", "macs"), ("Parameters", "params"))
    ]  # fmt: skip


def _bars(
    caption: str, rows: Sequence[tuple[str, float, float | None, str]], words: Callable[[float], str],
    paths: Sequence[tuple[str, str]] = (),
) -> Bars:  # fmt: skip
    most = max((value for _, *values, _ in rows for value in values if value is not None), default=0) or 1
    made = []
    for (name, before, after, link), (a, b) in zip(rows, paths or [("", "")] * len(rows), strict=True):
        there = 0.0 if after is None else after
        made.append(
            BarRow(
                name, words(before), "as before" if after is None else words(there), round(100 * before / most, 2),
                round(100 * (before if after is None else there) / most, 2), a, b, link,
            )
        )  # fmt: skip
    return Bars(caption, made)


def _reads(report: Report, ids: Mapping[str, str]) -> Bars | None:
    """Give the share of positions that each site reads, before and after."""
    measured = {cost.name: (i, cost.positions_read) for i, cost in enumerate(report.sites)}
    rows, paths = [], []
    for decision in report.decisions:
        index, after = measured.get(decision.site.name, (0, None))
        rows.append((decision.site.name, decision.site.positions_read, after, ids[decision.site.name]))
        paths.append(("", "" if after is None else f"sites.{index}.positions_read"))
    return _bars("Positions read.", rows, percent, paths) if rows else None


def _sites(report: Report, ids: Mapping[str, str], kernels: Mapping[str, str]) -> list[dict[str, Any]]:
    indices = {cost.name: i for i, cost in enumerate(report.sites)}
    return [_site(report, d, indices.get(d.site.name), ids, kernels) for d in report.decisions]


def _site(
    report: Report, decision: Decision, index: int | None, ids: Mapping[str, str], kernels: Mapping[str, str]
) -> dict[str, Any]:
    site, cost = decision.site, None if index is None else report.sites[index]
    sign, style = ACTIONS[decision.action]
    before = site.positions_read
    after = cost.positions_read if cost is not None else None
    reads = [percent(share) for share in (before, after) if share is not None]
    row = {
        "id": ids[site.name], "name": site.name, "shape": shape(site.calls), "operator": site.window,
        "action": decision.action, "sign": sign, "action_style": style, "style": STYLES[decision.action],
        "rule": decision.rule or "", "rewrite": decision.rewrite or "", "reason": decision.reason,
        "params": ", ".join(f"{key} {value}" for key, value in chosen_params(decision).items()),
        "claim": decision.claim.value if decision.claim else "",
        "training": decision.claim.training if decision.claim else "", "kernel": kernels.get(site.name, ""),
        "reads": reads, "reads_number": before, "cost_path": "", "params_change": 0, "macs_change": 0,
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


def _kernels(report: Report, ids: Mapping[str, str]) -> list[dict[str, Any]]:
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


def _kernel_words(kernel: Kernel) -> str:
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
    return " ".join(words)


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
        for name, source, inputs in zip(names, origin.sources, origin.inputs, strict=False):
            facts.append((name, f"{source.spec}, weights: {source.weights}, inputs {inputs_text(inputs)}"))
        facts.append(("seed", str(origin.seed)))
    versions = origin.versions if origin is not None else record.versions if record is not None else {}
    if versions:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in versions.items())))
    if report.seconds is not None:
        facts.append(("took", f"{report.seconds:.1f} s"))
    if report.peak_memory_bytes is not None:
        facts.append(("largest memory", quantity(report.peak_memory_bytes, "B")))
    return facts
