"""The page that sums up a run, in Markdown."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING

from spdify.errors import printable
from spdify.reporting.figures import quantity
from spdify.zoo import counting
from spdify.zoo.records import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spdify.records import Measure
    from spdify.zoo.records import OnnxFamilyRecord, RunRecord, SessionRecord, ZooRecord

SLOWEST, EXAMPLES = 15, 3
GIB = 2**30


def page(
    runs: Sequence[RunRecord],
    records: Sequence[ZooRecord],
    exports: Sequence[OnnxFamilyRecord],
    sessions: Sequence[SessionRecord],
) -> str:
    """Write the page.

    Args:
        runs: Settings, of each shard.
        records: Of all models.
        exports: Of all families.
        sessions: Of all processes that worked on it.
    """
    parts = [
        _head(runs, records, exports),
        _outcomes(records),
        _sites(records),
        _reasons(records),
        _changes(records),
        _proofs(records),
        _onnx(exports),
        _failures(records),
        _families(records, exports),
        _cost(records, sessions),
        _reproduce(runs, sessions),
    ]
    return "\n".join(parts)


class Marked(str):
    """Text whose marks of Markdown are meant; in a table, those of any other text are shown as they are."""

    __slots__ = ()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; the first column is text, the others are numbers where they look like it."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in lines)


def _cell(value: object) -> str:
    text = value if isinstance(value, Marked) else plain(str(value))
    return text.replace("|", "\\|")


def plain(text: str) -> str:
    """Keep what others wrote from being read as marks of Markdown; an underscore within a word is none."""
    return re.sub(r"[\\`*<&\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", _line(text))


def code(text: str) -> Marked:
    """Set a name of others' as code; a backtick would end it."""
    words = _line(text).replace("`", "'")
    return Marked(f"`{words}`" if words else "")


def _line(text: str) -> str:
    """Give a text on one line, without control characters."""
    return " ".join(printable(text).split())


def share(part: int, whole: int) -> str:
    """Give a count with its share: 12 of 48 (25.0 %)."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)" if whole else "0 of 0"


def _head(runs: Sequence[RunRecord], records: Sequence[ZooRecord], exports: Sequence[OnnxFamilyRecord]) -> str:
    total, wanted = len(records), sum(run.names for run in runs)
    applied = sum(r.count("applied") for r in records)
    sites = sum(g.count for r in records for g in r.sites)
    proved = sum(r.sites_proved for r in records)
    clean = [r for r in records if (check := r.check("nothing else left")) and check.outcome == "passed"]
    converted = [r for r in records if r.after is not None]
    whole = sum(r.proof == "model" for r in records)
    passed = sum(e.outcome == "passed" for e in exports)
    return (
        f"# Zoo: {total:,} models, rulebook {code('+'.join(runs[0].settings.rules))}\n\n"
        "Written by `spdify zoo summarize` from the lines of the run; not edited by hand.\n\n"
        f"- **{share(total, wanted)}** models of the run have ended.\n"
        f"- **{share(applied, sites)}** sites are converted; **{share(proved, applied)}** of them are proved exact on "
        "their own, in float64.\n"
        f"- **{share(len(clean), len(converted))}** converted models show nothing else that downsamples in a census of "
        "their forward pass.\n"
        f"- **{share(whole, len(converted))}** converted models are proved whole, in float64, in train and eval mode.\n"
        f"- **{share(passed, len(exports))}** families export to ONNX and agree in ONNX Runtime.\n\n"
        "![models by family and outcome](families.svg)\n"
    )


def _outcomes(records: Sequence[ZooRecord]) -> str:
    counted = counting.outcomes(records)
    rows = [
        [words, *[_count(records, outcome, kind) for kind in ("timm", "torchvision")], counted[outcome]]
        for outcome, words in OUTCOMES.items()
    ]
    return "## Outcomes\n\n" + table(("outcome", "timm", "torchvision", "all"), rows)


def _count(records: Sequence[ZooRecord], outcome: str, kind: str) -> int:
    return sum(r.outcome == outcome and r.name.startswith(f"{kind}:") for r in records)


def _sites(records: Sequence[ZooRecord]) -> str:
    counted = counting.sites_by_operator(records)
    rows = [[op, *(counts[a] for a in counting.ACTIONS), sum(counts.values())] for op, counts in counted.items()]
    seen = counting.eval_sites(records)
    compared = [[op, seen[op], known, seen[op] - known] for op, known in counting.INDEPENDENT_COUNT.items()]
    return (
        "## Sites\n\n"
        + table(("operator", *counting.ACTIONS, "all"), rows)
        + "\nBeside a count of timm 1.0.31 and torchvision 0.29.1 that has nothing of spdify in it (a dispatch mode "
        "over plain forward passes at default sizes, in eval mode; to it a blur pool is a convolution):\n\n"
        + table(("operator", "sites in eval mode", "independent count", "difference"), compared)
        + "\nThe independent count is of the whole zoo. It ran each model at the size of its published weights, where "
        "torchvision's vit_h_14, built without these, does not run: it lacks that model's one convolution.\n"
    )


def _reasons(records: Sequence[ZooRecord]) -> str:
    rows = [[r.text, r.action, r.operator, r.sites, r.models, code(r.example)] for r in counting.reasons(records)]
    if not rows:
        return "## Why sites are left\n\nNone is.\n"
    return (
        "## Why sites are left\n\n![sites left, by reason](reasons.svg)\n\n"
        + table(("reason", "decision", "operator", "sites", "models", "for example"), rows)
    )  # fmt: skip


def _changes(records: Sequence[ZooRecord]) -> str:
    figures: dict[str, Callable[[Measure], int]] = {
        "parameters": lambda m: m.params,
        "MACs": lambda m: m.macs,
        "activation memory": lambda m: m.activation_bytes,
    }
    rows = []
    for name, figure in figures.items():
        if values := counting.changes(records, figure):
            rows.append([name, *(f"{100 * value:+.1f} %" for value in counting.spread(values))])
    head = ("change", "least", "a quarter below", "median", "a quarter above", "largest")
    return (
        "## What conversion costs\n\n![changes, model by model](changes.svg)\n\n"
        + table(head, rows)
        + "\nAt batch 1 and the model's own input size. MACs as `torch.utils.flop_counter` counts them; activation "
        "memory is the size of all operator outputs of one forward pass.\n"
    )


def _proofs(records: Sequence[ZooRecord]) -> str:
    converted = [r for r in records if r.after is not None]
    levels = Counter(r.proof for r in converted)
    rows = [
        ["whole model, float64, reduced input", levels["model"]],
        [Marked("every site on its own (`site`)"), levels["site"]],
        ["none (failed before)", levels["none"]],
    ]
    worst = [
        [name, f"{check.value:.1e}", f"{check.tolerance:.0e}", code(model), number]
        for name, (check, model, number) in counting.worst_checks(converted).items()
        if name != "live sites"
    ]
    sites = max(converted, key=lambda r: r.worst_site_error or 0.0, default=None)
    if sites is not None and sites.worst_site_error is not None:
        number = sum(r.sites_proved for r in converted)
        worst.insert(0, ["each site on its own", f"{sites.worst_site_error:.1e}", "1e-10", code(sites.name), number])
    outcomes = [
        [name, *(counted[o] for o in ("passed", "not run", "failed", "measured"))]
        for name, counted in counting.check_outcomes(converted).items()
    ]
    notes = Counter(r.proof_note for r in converted if r.proof == "site" and "GMACs:" not in r.proof_note)
    return (
        "## Proofs\n\n"
        + table(("level", "models"), rows)
        + "\nAbove 5 GMACs every site is proved on its own, below the whole model too. Largest errors of what "
        "passed:\n\n"
        + table(("check", "largest", "allowed", "in", "of"), worst)
        + "\n"
        + table(("check", "passed", "not run", "failed", "measured"), outcomes)
        + "\n`live sites` not run: some site does not move the output, so that the whole-model figures say nothing "
        "about it (its own proof does). `statistics` not run: the model keeps none.\n"
        + ("\nNot proved whole below 5 GMACs:\n\n" + table(("why", "models"), notes.most_common()) if notes else "")
    )


def _onnx(exports: Sequence[OnnxFamilyRecord]) -> str:
    if not exports:
        return "## ONNX\n\nNothing was exported.\n"
    counted = Counter(e.outcome for e in exports)
    rows = [
        [code(e.name), e.outcome, code(e.attempts[-1].name) if e.attempts else "", _detail(e)]
        for e in exports
        if e.outcome != "passed"
    ]
    fixed = [code(e.attempts[-1].name) for e in exports if e.attempts and e.attempts[-1].dynamic_batch is False]
    text = "## ONNX\n\nOf each family the cheapest model is exported and compared with PyTorch in ONNX Runtime.\n\n"
    text += table(("outcome", "families"), counted.most_common())
    if rows:
        text += "\n" + table(("family", "outcome", "last tried", "why"), rows)
    if fixed:
        text += f"\nWith a fixed batch: {', '.join(fixed)}.\n"
    return text


def _detail(export: OnnxFamilyRecord) -> str:
    if export.failure is not None:
        return export.failure.message
    return _first_line(export.attempts[-1].detail)[:200] if export.attempts else ""


def _failures(records: Sequence[ZooRecord]) -> str:
    found = counting.failures(records)
    if not found:
        return "## Failures\n\nNone.\n"
    rows = [
        [
            stage,
            kind,
            len(models),
            Marked(", ".join(code(r.name) for r in models[:EXAMPLES])),
            _first_line(models[0].failure.message if models[0].failure else "")[:160],
        ]
        for (stage, kind), models in found.items()
    ]
    return "## Failures\n\n" + table(("step", "kind", "models", "for example", "the first says"), rows)


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _families(records: Sequence[ZooRecord], exports: Sequence[OnnxFamilyRecord]) -> str:
    onnx = {e.name: e.outcome for e in exports}
    rows = []
    for family, models in counting.families(records).items():
        applied = sum(r.count("applied") for r in models)
        left = sum(r.count("kept") + r.count("refused") for r in models)
        counted = counting.outcomes(models)
        rows.append([code(family), len(models), *counted.values(), applied, left, onnx.get(family, "")])
    head = ("family", "models", *OUTCOMES, "sites converted", "sites left", "ONNX")
    return "## Families\n\n" + table(head, rows)


def _cost(records: Sequence[ZooRecord], sessions: Sequence[SessionRecord]) -> str:
    steps: Counter[str] = Counter()
    for record in records:
        steps.update(record.seconds)
    total = sum(steps.values())
    spent = [[step, f"{seconds:.0f}", f"{seconds / len(records):.2f}"] for step, seconds in steps.most_common()]
    slowest = sorted(records, key=lambda r: -sum(r.seconds.values()))[:SLOWEST]
    rows = [
        [code(r.name), f"{sum(r.seconds.values()):.1f}", max(r.seconds, key=r.seconds.__getitem__, default=""),
         quantity(r.before.macs) if r.before else "", _gib(r.peak_memory_bytes)]
        for r in slowest
    ]  # fmt: skip
    ends = [s for s in sessions if s.event == "end"]
    starts = sum(s.event == "start" for s in sessions)
    peak = max((s.peak_memory_bytes or 0 for s in ends), default=0)
    largest = max(records, key=lambda r: r.peak_memory_bytes or 0)
    return (
        "## Time and memory\n\n"
        f"{total / 60:.0f} minutes of CPU time on the models ({total / len(records):.1f} s each); "
        f"sessions: {starts}, of which {starts - len(ends)} never ended (killed); the others "
        f"took {sum(s.seconds for s in ends) / 60:.1f} minutes. "
        f"Most memory held at one time by all processes: {_gib(peak)}; "
        f"by one worker: {_gib(largest.peak_memory_bytes)} ({code(largest.name)}).\n\n"
        + table(("step", "CPU seconds", "per model"), spent)
        + "\n"
        + table(("slowest", "CPU seconds", "longest step", "MACs", "peak memory"), rows)
    )


def _gib(size: int | None) -> str:
    return f"{size / GIB:.2f} GiB" if size else "not known"


def _reproduce(runs: Sequence[RunRecord], sessions: Sequence[SessionRecord]) -> str:
    settings = runs[0].settings
    options = [*(f"--rules {_word(book)}" for book in settings.rules), f"--onnx {settings.onnx}"]
    options += [f"--seed {settings.seed}"]
    options += [f"--filter {_word(settings.filter)}"] if settings.filter != "*" else []
    options += [f"--source {settings.source}"] if settings.source else []
    named = plain(", ".join(r.settings.shard for r in runs))
    shards = f", one folder for each of the shards {named}" if len(runs) > 1 else ""
    cores = sorted({s.cores for s in sessions})
    versions = plain(", ".join(f"{name} {number}" for name, number in runs[0].versions.items()))
    return (
        "## How to run it again\n\n"
        f"```sh\nspdify zoo run -o DIR {' '.join(options)}\nspdify zoo summarize DIR\n```\n\n"
        f"With {versions}; on {', '.join(map(str, cores)) or '?'} cores{shards}. A run that was cut off goes on with "
        "`--resume`; its lines are the same, but for time and memory.\n"
    )


def _word(text: str) -> str:
    """Give a text as one word of a shell's line."""
    return shlex.quote(_line(text))
