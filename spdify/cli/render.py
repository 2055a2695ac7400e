"""Records as tables on the terminal, readable at 80 columns."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spdify.errors import printable
from spdify.reporting.budgets import budget_columns, budget_lines, budget_rows
from spdify.reporting.channels import CHANNEL_COLUMNS, channel_rows
from spdify.reporting.decisions import COMPARED_COLUMNS, compared_rows
from spdify.reporting.figures import (
    bench_words,
    change,
    chosen_words,
    evaluation_words,
    inputs_text,
    percent,
    quantity,
    shape,
)  # fmt: skip
from spdify.reporting.markdown import check_figures, headline, overlaps, total_rows
from spdify.reporting.studies import headline as headline_of_study

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from spdify.records import (
        BenchRecord,
        Budget,
        BundleRecord,
        Calibration,
        Check,
        ComparedSite,
        ExportRecord,
        LeftAlone,
        MeasuredDetector,
        MeasuredModel,
        Report,
        Site,
        SiteCost,
        TimedForm,
        TrainingResult,
    )
    from spdify.reporting import Inspection
    from spdify.reporting.studies import StudyPage

OUTCOME_STYLES = {"passed": "green", "failed": "bold red", "measured": "cyan", "not run": "yellow"}
ACTION_STYLES = {"applied": "green", "kept": "cyan", "refused": "yellow"}
WIDE = 100  # columns from which shapes are shown


def _table(*columns: tuple[str, str], title: str = "") -> Table:
    """Make a plain table; each column is a name and `left` or `right`."""
    table = Table(
        box=None, header_style="bold", title=title or None, title_justify="left", title_style="bold", pad_edge=False
    )
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _cell(text: str, style: str = "") -> Text:
    """Give text of somebody's, not to be read as markup."""
    return Text(printable(text), style=style)


def render_inspection(console: Console, found: Inspection) -> None:
    """Show the sites of a model, what is left alone, and whether both eyes agree."""
    cost = f"{quantity(found.cost.params)} parameters, {quantity(found.cost.macs)} MACs"
    text = f" at {inputs_text(found.inputs)}: {len(found.sites)} sites, {cost}"
    console.print(Text.assemble((printable(found.model), "bold"), text))
    if found.sites:
        wide = console.width >= WIDE
        shapes = [("shape", "left")] if wide else []
        table = _table(("site", "left"), ("operator", "left"), *shapes, ("MACs", "right"), ("reads", "right"))
        for site in found.sites:
            share = 100 * site.macs / found.cost.macs if found.cost.macs else 0
            row = [site.name, site.window]
            row += [shape(site.calls)] if wide else []
            table.add_row(*map(_cell, row), f"{share:.1f}%", f"{100 * site.positions_read:.0f}%")
        console.print(table)
        key = "MACs: share of the model's; reads: share of the input positions that the operator looks at."
        console.print(key, style="dim")
        for site in found.sites:
            if site.expression:
                console.print(_cell(f"{site.name}: {site.expression}", "dim"))
            for obstacle in site.obstacles:
                console.print(_cell(f"{site.name}: {obstacle}", "yellow"))
    _render_left_alone(console, found.left_alone)
    if found.disagreements:
        console.print("Trace and census disagree:", style="bold red")
        for words in found.disagreements:
            console.print(_cell(f"  {words}"))
    elif found.one_eye:
        text = f"Trace and operator census agree; in {len(found.one_eye)} modules the census alone sees their own code."
        console.print(text, style="green")
    else:
        console.print("Trace and operator census agree.", style="green")
    if found.eval_only:
        console.print(_cell(f"Looked at in eval mode only: {found.eval_only}", "yellow"))


def _render_left_alone(console: Console, left: tuple[LeftAlone, ...]) -> None:
    if left:
        table = _table(("left alone", "left"), ("operator", "left"), ("why", "left"))
        for item in left:
            table.add_row(*map(_cell, (item.path or "(model)", item.operator, item.reason)))
        console.print(table)


def render_report(console: Console, report: Report) -> None:
    """Show what changed and what it costs."""
    name, book = printable(report.model), printable(report.rulebook)
    console.print(Text.assemble((name, "bold"), f", rulebook {book}" if report.decisions else ""))
    console.print(Text(headline(report)))
    for words in report.scaling:
        console.print(_cell(f"Scaled first: {words}."))
    totals = _table(("", "left"), ("before", "right"), ("after", "right"), ("change", "right"))
    for row in total_rows(report):
        totals.add_row(*row)
    console.print(totals)
    console.print("One forward pass at batch 1; 1 MAC = 2 FLOPs, as torch.utils.flop_counter counts.", style="dim")
    if report.compared:
        console.print()
        _render_compared(console, report.compared)
    if report.decisions:
        console.print()
        _render_decisions(console, report)
    if report.budget is not None:
        console.print()
        _render_budget(console, report.budget)
    if report.left_alone:
        console.print()
        _render_left_alone(console, report.left_alone)
    if report.checks:
        console.print()
        _render_checks(console, report.checks, report.proof)


def _render_compared(console: Console, sites: tuple[ComparedSite, ...]) -> None:
    """Show what two networks do at each site; the operators only where there is room."""
    shown = [i for i, name in enumerate(COMPARED_COLUMNS) if name != "operator" or console.width >= WIDE]
    table = _table(*((COMPARED_COLUMNS[i], "left") for i in shown))
    for row in compared_rows(sites):
        table.add_row(*(_cell(row[i]) for i in shown))
    console.print(table)


def _render_decisions(console: Console, report: Report) -> None:
    costs = {cost.name: cost for cost in report.sites}
    wide = console.width >= WIDE
    table = _table(
        ("site", "left"), ("operator", "left"), *([("shape", "left")] if wide else []), ("decision", "left"),
        ("parameters", "right"), ("MACs", "right"), *([("reads", "right")] if wide else []),
    )  # fmt: skip
    for decision in report.decisions:
        site, cost = decision.site, costs.get(decision.site.name)
        claim = f" ({decision.claim.value})" if decision.claim is not None else ""
        done = Text(f"{decision.action}{claim}", style=ACTION_STYLES[decision.action])
        if decision.action != "applied":
            done.append(f": {printable(decision.reason)}", style="default")
        figures = ("", "")
        if cost is not None:
            figures = (change(cost.before.params, cost.after.params), change(cost.before.macs, cost.after.macs))
        shapes, reads = ([shape(site.calls)], [_reads(site, cost)]) if wide else ([], [])
        table.add_row(*map(_cell, (site.name, site.window, *shapes)), done, *figures, *reads)
    console.print(table)
    if wide:
        words = (
            "reads: share of the input positions that have a part in the output, before → once new weights may be used."
        )
        console.print(words, style="dim")
    if text := overlaps(report):
        console.print(_cell(text))
    if rows := channel_rows(report):
        channels = _table(*((name, "left") for name in CHANNEL_COLUMNS))
        for row in rows:
            channels.add_row(*map(_cell, row))
        console.print(channels)


def _reads(site: Site, cost: SiteCost | None) -> str:
    after = None if cost is None else cost.positions_read
    before = site.positions_read if site.kind == "downsampling" else None
    return " → ".join(percent(share) for share in (before, after) if share is not None)


def _render_budget(console: Console, budget: Budget) -> None:
    for line in budget_lines(budget):
        console.print(_cell(line))
    head = budget_columns(budget)
    costs = range(3, len(head) - 1)
    table = _table(*((name, "right" if i in costs else "left") for i, name in enumerate(head)))
    for row in budget_rows(budget):
        *cells, chosen = row
        table.add_row(*map(_cell, cells), Text(chosen, style="green"))
    console.print(table)


def _render_checks(console: Console, checks: tuple[Check, ...], proof: str = "") -> None:
    """Show the checks, those of single sites as one row, and those of single modules that channels reach."""
    table = _table(
        (escape(f"check (level {printable(proof)})") if proof else "check", "left"),
        ("outcome", "left"),
        ("figure", "right"),
        ("limit", "right"),
        ("", "left"),
    )
    groups: dict[str, list[Check]] = defaultdict(list)
    for check in checks:
        if check.outcome == "passed" and (title := _title_of_many(check.name)):
            groups[title].append(check)
    for title, alike in groups.items():
        worst = max(alike, key=lambda c: c.value or 0)
        text = f"largest of {len(alike)}, each on its own"
        table.add_row(_cell(title), Text("passed", style="green"), *check_figures(worst), text)
    joined = {check.name for alike in groups.values() for check in alike}
    for check in checks:
        if check.name not in joined:
            outcome = Text(check.outcome, style=OUTCOME_STYLES[check.outcome])
            table.add_row(_cell(check.name), outcome, *check_figures(check), _cell(check.detail))
    console.print(table)


def _title_of_many(name: str) -> str:
    """Give the row that stands for all checks of single sites, or modules that channels reach; else nothing."""
    step, separator, what = name.rpartition(": ")
    titles = {"site": "sites", "carried": "carried channels"}
    title = titles.get(what.partition(" ")[0], "")
    return f"{step}{separator}{title}" if title else ""


def render_conversion(console: Console, report: Report, record: BundleRecord, folder: Path) -> None:
    """Show the result of a conversion and where it lies."""
    checks = report.checks + (record.onnx.checks if record.onnx is not None else ())
    render_report(console, report.model_copy(update={"checks": checks}))
    if record.onnx is None:
        console.print("No ONNX file was asked for.", style="yellow")
    elif record.onnx.note:
        console.print(Text(f"ONNX: {record.onnx.note}", style="yellow"))
    seconds = f" in {report.seconds:.0f} s (without writing)" if report.seconds is not None else ""
    console.print(Text.assemble("Written to ", (printable(str(folder)), "bold"), f"{seconds}."), soft_wrap=True)
    console.print(Text.assemble("To look at: ", (printable(str(folder / "report.html")), "bold")), soft_wrap=True)


def render_training(console: Console, result: TrainingResult, folder: Path) -> None:
    """Show what a training came to."""
    found = result.evaluation
    console.print(Text.assemble((printable(result.model), "bold"), f", {chosen_words(result)}:"))
    console.print(evaluation_words(found, result.split), markup=False)
    if result.split != "test":
        console.print(f"There are no test images; the {result.split} images have served the training.", style="yellow")
    console.print(
        f"{quantity(result.cost.params)} parameters, {quantity(result.cost.macs)} MACs; trained for "
        f"{result.seconds:.0f} s at {result.images_per_second:.0f} images/s.",
        markup=False,
    )
    console.print(f"{printable(str(folder))}: best, last (bundles), report.html, results.csv, curves.svg", markup=False)


def render_study(console: Console, page: StudyPage, folder: Path) -> None:
    """Show every run of a study, and what was concluded."""
    table = _table(("network", "left"), ("size", "right"), ("seed", "right"), ("top-1", "right"), ("images/s", "right"))
    for run in page.runs:
        found = run.result.evaluation
        speed = f"{run.result.images_per_second:.0f}"
        table.add_row(*map(_cell, (run.arm, str(run.size), str(run.seed), f"{found.top1:.2%}", speed)))
    console.print(table)
    for line in headline_of_study(page):
        console.print(line, markup=False)
    console.print(f"{printable(str(folder))}: report.html, report.md, results.csv, curves, runs", markup=False)


MOST_CLASSES = 20  # of a confusion matrix that is shown whole
WORST = 10  # pairs of classes that are shown otherwise


def render_measured(console: Console, found: MeasuredModel) -> None:
    """Show how well a model does, and what it takes for what."""
    console.print(Text.assemble((printable(found.model), "bold"), f" ({found.backend}) on {printable(found.data)}"))
    console.print(evaluation_words(found.evaluation, found.split), markup=False)
    how = found.preprocessing
    numbers = [", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std)]
    size = "×".join(map(str, how.input_size))
    console.print(
        f"inputs {size}, mean {numbers[0]}, deviation {numbers[1]} ({found.preprocessing_from}); "
        + (f"{found.images_per_second:.0f} images/s" if found.images_per_second else "speed: too few images to say"),
        markup=False,
    )
    for note in found.notes:
        console.print(note, style="yellow", markup=False)
    if len(found.classes) <= MOST_CLASSES:
        _confusion(console, found)
    else:
        _confused_pairs(console, found)


def render_detector(console: Console, found: MeasuredDetector) -> None:
    """Show how well a detector does, and what it takes for what."""
    console.print(Text.assemble((printable(found.model), "bold"), f" ({found.detector}) on {printable(found.data)}"))
    objects = found.objects
    crowds = f", and {objects.crowds:,} crowds that are not counted" if objects.crowds else ""
    console.print(f"{found.images:,} {printable(found.split)} images, {objects.total:,} objects{crowds}", markup=False)
    size = "×".join(map(str, found.image_size))
    console.print(
        f"inputs {size} ({found.resizing}); "
        + (f"{found.images_per_second:.1f} images/s" if found.images_per_second else "speed: too few images to say"),
        markup=False,
    )
    for note in found.notes:
        console.print(note, style="yellow", markup=False)
    table = _table(("figure", "left"), ("%", "right"), ("objects", "right"), ("", "left"))
    precision, every = found.precision, f"{objects.total:,}"
    rows = (
        ("AP", precision.ap, every, "mean over classes and IoU .50, .55 … .95"),
        ("AP50", precision.ap50, every, "IoU .50"),
        ("AP75", precision.ap75, every, "IoU .75"),
        ("AP small", precision.ap_small, f"{objects.small:,}", "up to 32² pixels"),
        ("AP medium", precision.ap_medium, f"{objects.medium:,}", "up to 96²"),
        ("AP large", precision.ap_large, f"{objects.large:,}", "above"),
        ("AR100", precision.ar100, every, "recall, 100 boxes per image and class"),
    )
    for name, value, count, words in rows:
        table.add_row(name, "–" if value is None else f"{100 * value:.1f}", count, _cell(words, "dim"))  # noqa: RUF001
    console.print(table)


def _confusion(console: Console, found: MeasuredModel) -> None:
    columns = [(str(i), "right") for i in range(len(found.classes))]
    table = _table(
        ("class", "left"), ("", "right"), *columns, ("right", "right"), title="Confusion: rows are the classes"
    )
    for i, (name, row) in enumerate(zip(found.classes, found.confusion, strict=True)):
        share = f"{row[i] / sum(row):.1%}" if sum(row) else ""
        cells = [_cell(str(n) if n else "·", "green" if i == j and n else "") for j, n in enumerate(row)]
        table.add_row(_cell(name), _cell(str(i)), *cells, _cell(share))
    console.print(table)


def _confused_pairs(console: Console, found: MeasuredModel) -> None:
    pairs = [
        (count, found.classes[i], found.classes[j])
        for i, row in enumerate(found.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    table = _table(("class", "left"), ("taken for", "left"), ("images", "right"), title="Most often confused")
    for count, name, other in sorted(pairs, key=lambda pair: -pair[0])[:WORST]:
        table.add_row(_cell(name), _cell(other), _cell(str(count)))
    console.print(table)


def render_calibration(console: Console, found: Calibration, folder: Path) -> None:
    """Show the errors before and after a calibration."""
    if found.pools:
        table = _table(("pool", "left"), ("error before", "right"), ("after", "right"))
        for pool in found.pools:
            table.add_row(_cell(pool.path), _cell(f"{pool.before:.3g}"), _cell(f"{pool.after:.3g}"))
        console.print(table)
    for site, reason in found.not_fitted.items():
        console.print(f"not fitted: {printable(site)}: {printable(reason)}", style="yellow", markup=False)
    console.print(
        f"outputs: error {found.before:.3g} before, {found.after_pools:.3g} with {len(found.pools)} pools fitted, "
        f"{found.after:.3g} with the statistics of {found.norms} batch norms taken anew",
        markup=False,
    )
    if found.after > found.after_pools:
        console.print(
            "The new statistics have moved it away from the original: --no-norms leaves them out.", style="yellow"
        )
    console.print(
        f"Errors are relative to the original (root of summed squares), on {found.held_out:,} images held out of "
        f"{found.images + found.held_out:,}.",
        markup=False,
    )
    console.print(printable(str(folder)), markup=False)


def render_export(console: Console, record: ExportRecord, folder: Path) -> None:
    """Show what was written, what each block has become, and how far it was compared."""
    opset = f", opset {record.opset}" if record.opset else ""
    words = f": form {record.form}, {record.format} in {record.dtype}{opset}"
    console.print(Text.assemble((printable(record.model), "bold"), words))
    taken = "any batch" if record.dynamic_batch else "batch 1"
    size = "any height and width" if record.dynamic_size else "the size of the example"
    console.print(_cell(f"Takes {inputs_text(record.inputs)}, or {taken} at {size}."))
    if record.timings:
        render_timings(console, record.timings)
    if record.sites:
        table = _table(("block", "left"), ("deployed as", "left"))
        for site in record.sites:
            table.add_row(_cell(site.path), _cell(site.form or f"stays a {site.block}: {site.reason}"))
        console.print(table)
    _render_checks(console, record.checks)
    console.print(_cell(f"Written to {folder}: {', '.join(record.files)}, export.json"))


def render_bench(console: Console, record: BenchRecord) -> None:
    """Show what was timed, and how."""
    console.print(Text.assemble((printable(record.model), "bold"), f": {bench_words(record)}"))
    render_timings(console, record.timings)
    weights = "as they are" if record.as_is else "moved, as training would, so that nothing folds back"
    turns = f"Median of {record.rounds} rounds in turns; ratios to {record.timings[0].form}."
    console.print(_cell(f"{turns} Weights {weights}.", "dim"))


def render_timings(console: Console, timings: Sequence[TimedForm]) -> None:
    """Show forms that were timed in turns."""
    table = _table(("form", "left"), ("ms", "right"), ("ratio", "right"), ("quartiles", "right"), ("", "left"))
    for timing in timings:
        ms = "" if timing.milliseconds is None else f"{timing.milliseconds:.2f}"
        ratio = "1" if timing.ratio is None and ms else ""
        spread = ""
        if timing.ratio is not None:
            ratio, spread = f"{timing.ratio.median:.3f}", f"{timing.ratio.low:.3f} to {timing.ratio.high:.3f}"
        table.add_row(_cell(timing.form), ms, ratio, spread, _cell(timing.note, "dim"))
    console.print(table)
