"""From the lines of a run to a page and its pictures; nothing else is read, so that anybody can do it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spdify.bundle.places import check_file, write_text
from spdify.errors import BundleError, UsageError
from spdify.reporting.documents import document_page
from spdify.reporting.pictures import bars, stacked_bars, strips
from spdify.zoo import counting
from spdify.zoo.pages import page
from spdify.zoo.records import OUTCOMES, SessionRecord
from spdify.zoo.store import SESSIONS, RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spdify.zoo.records import OnnxFamilyRecord, RunRecord, ZooRecord

PAGE, HTML = "summary.md", "summary.html"
FAMILIES, CHANGES, REASONS = "families.svg", "changes.svg", "reasons.svg"
REASONS_SHOWN = 20
LARGEST_CHANGE = 1.0  # where the axis of changes ends


@dataclass(frozen=True)
class RunContent:
    """All lines of a run, its shards put together."""

    runs: tuple[RunRecord, ...]
    records: tuple[ZooRecord, ...]
    exports: tuple[OnnxFamilyRecord, ...]
    sessions: tuple[SessionRecord, ...]


def summarize(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write `summary.md`, its pictures, and `summary.html`, which holds both.

    Args:
        folders: Of one run, or of its shards.
        output: Folder to write to; files of an earlier summary are replaced.

    Returns:
        What was written.

    Raises:
        BundleError: A folder holds no run, or cannot be read or written; a file to be replaced is a link.
        UsageError: The folders belong to different runs.
    """
    content = read_runs(folders)
    if not content.records:
        raise UsageError(f"cannot sum up {folders[0]}: no model has ended yet", hint="Go on with the run: --resume.")
    text, pictures = page(content.runs, content.records, content.exports, content.sessions), _pictures(content)
    title = f"Zoo: {len(content.records):,} models"
    texts = {PAGE: text, HTML: document_page(title, text, pictures), **pictures}
    files = {output / name: text for name, text in texts.items()}
    for file in files:
        if os.path.islink(file):  # noqa: PTH114 - pathlib's raises where a name is too long
            raise BundleError(
                f"cannot write {file}: it is a link", hint="Remove it, or choose another folder with -o DIR."
            )
        check_file(file, overwrite=True)
    for file, text in files.items():
        write_text(file, text, overwrite=True)
    return list(files)


def read_runs(folders: Sequence[Path]) -> RunContent:
    """Read the folders of a run."""
    places = [RunFolder(path) for path in folders]
    runs = tuple(place.run() for place in places)
    for run in runs[1:]:
        whole = [r.model_copy(update={"settings": r.settings.model_copy(update={"shard": ""})}) for r in (runs[0], run)]
        if any((w.settings, w.versions) != (whole[0].settings, whole[0].versions) for w in whole):
            raise UsageError("cannot sum up these folders together: they hold different runs")
    records = {record.name: record for place in places for record in place.results()}
    return RunContent(
        runs=runs,
        records=tuple(records[name] for name in sorted(records)),
        exports=tuple(export for place in places for export in place.exports()),
        sessions=tuple(line for place in places for line in place.read(SESSIONS, SessionRecord)),
    )


def _pictures(content: RunContent) -> dict[str, str]:
    by_family = counting.families(content.records)
    coverage: dict[str, Mapping[str, int]] = {
        family: {str(outcome): number for outcome, number in counting.outcomes(records).items() if number}
        for family, records in by_family.items()
    }
    figures = {
        "parameters": counting.changes(content.records, lambda m: m.params),
        "MACs": counting.changes(content.records, lambda m: m.macs),
        "activation memory": counting.changes(content.records, lambda m: m.activation_bytes),
    }
    found = counting.reasons(content.records)[:REASONS_SHOWN]
    sites = {f"{r.operator}, {r.action}: {r.text}": (r.sites, r.action) for r in found}
    used: dict[str, str] = {
        outcome: words for outcome, words in OUTCOMES.items() if counting.outcomes(content.records)[outcome]
    }
    return {
        FAMILIES: stacked_bars(
            f"{len(content.records)} models in {len(by_family)} families",
            "Number of models of each family by outcome of the conversion.",
            dict(sorted(coverage.items(), key=lambda item: (-sum(item[1].values()), item[0]))),
            used,
        ),
        CHANGES: strips(
            "What conversion costs, model by model",
            "Relative change of parameters, MACs and activation memory; one mark per converted model.",
            figures,
            most=LARGEST_CHANGE,
        ),
        REASONS: bars(
            f"Why sites are left: {sum(number for number, _ in sites.values())} sites",
            "Number of sites that are kept or refused, by reason.",
            sites,
        ),
    }
