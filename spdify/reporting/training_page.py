"""A training run as a page: what it came to, how it went there, and how to make it again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from spdify.reporting.figures import chosen_words, evaluation_words, percent, quantity
from spdify.reporting.rendering import Table, render
from spdify.reporting.studies import recipe_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.records import BundleRecord, DataRecord, EpochResult, Preprocessing, TrainingResult, TrainingRun

MATRIX = 20  # classes of a confusion matrix that is shown whole
WORST = 200  # classes that are listed
OPEN_EPOCHS = 30  # shown when the page opens
MISTAKES = 3  # that are named for a class
COLUMNS = (
    "epoch", "learning rate", "training loss", "validation loss", "validation top-1", "validation top-5",
    "calibration error", "images/s", "seconds",
)  # fmt: skip


def training_page(  # noqa: PLR0913 - all that a run has left
    run: TrainingRun, record: BundleRecord, result: TrainingResult, history: Sequence[EpochResult], curves: str,
    pairs: Mapping[tuple[int, int], int],
) -> str:  # fmt: skip
    """Give a run that has ended as a page.

    Args:
        run: What it was started with.
        record: Of the bundle that it began with.
        result: What it came to.
        history: Every epoch.
        curves: The picture of the epochs, SVG.
        pairs: Number of images by (class, class found), of the split that `result` was measured on.
    """
    head = f"{result.model} on {run.known.name}"
    context: dict[str, Any] = {
        "title": f"{head}: top-1 {result.evaluation.top1:.2%}",
        "heading": head,
        "answer": f"{result.model}, {chosen_words(result)}: {evaluation_words(result.evaluation, result.split)}",
        "tiles": _tiles(result),
        "curves": Markup(curves),  # noqa: S704 - drawn here, escaped there
        "epochs": _epochs(history, result),
        "opened": len(history) <= OPEN_EPOCHS,
        "classes": _classes(result, pairs),
        "matrix": _matrix(result, pairs),
        "class_count": len(result.classes),
        "split": result.split,
        "lists": [
            ("recipe", f"Recipe {run.recipe.name}", list(recipe_fields(run.recipe).items())),
            ("data", "Data", _data(run.known)),
            ("preprocessing", "Preprocessing", _preprocessing(run.preprocessing)),
        ],
        "open": _open(run, record, result),
        "command": run.command,
        "facts": _facts(run, record),
    }
    return render("training.html", context)


def _tiles(result: TrainingResult) -> list[dict[str, str]]:
    """Give the figures, with their places in `result.json`."""
    found, cost = result.evaluation, result.cost
    images = f"of {found.images:,} {result.split} images"
    shown = [
        ("top-1", f"{found.top1:.2%}", "evaluation.top1", images),
        ("top-5", f"{found.top5:.2%}", "evaluation.top5", images),
        ("loss", f"{found.loss:.4f}", "evaluation.loss", "cross entropy, nats"),
        ("calibration error", f"{found.calibration_error:.4f}", "evaluation.calibration_error", "expected, 15 bins"),
        ("parameters", quantity(cost.params), "cost.params", f"{quantity(cost.weight_bytes, 'B')} as a file"),
        ("MACs", quantity(cost.macs), "cost.macs", "one image"),
        ("training time", f"{result.seconds:.0f} s", "seconds", f"{result.images_per_second:.0f} images/s"),
    ]
    return [dict(zip(("name", "text", "path", "note"), row, strict=True)) for row in shown]


def _epochs(history: Sequence[EpochResult], result: TrainingResult) -> Table:
    rows = []
    for one in history:
        found = one.validation
        measured = (
            (f"{found.loss:.4f}", f"{found.top1:.2%}", f"{found.top5:.2%}", f"{found.calibration_error:.4f}")
            if found
            else ("",) * 4
        )
        mark = " (taken)" if one.epoch == result.best_epoch else ""
        ends = (f"{one.images_per_second:.0f}", f"{one.seconds:.1f}")
        rows.append((f"{one.epoch}{mark}", f"{one.lr:.3g}", f"{one.train_loss:.4f}", *measured, *ends))
    left = () if all(one.validation for one in history) else COLUMNS[3:7]
    kept = [i for i, name in enumerate(COLUMNS) if name not in left]
    columns = [COLUMNS[i] for i in kept]
    return Table("Every epoch", columns, [[row[i] for i in kept] for row in rows], numbers=columns[1:])


def _classes(result: TrainingResult, pairs: Mapping[tuple[int, int], int]) -> list[dict[str, Any]]:
    """Give each class that has images: how many are right, and what the others were taken for; the worst first."""
    images: Counter[int] = Counter()
    mistakes: dict[int, Counter[int]] = {}
    for (label, found), number in pairs.items():
        images[label] += number
        if label != found:
            mistakes.setdefault(label, Counter())[found] += number
    rows = []
    for label, number in images.items():
        wrong = mistakes.get(label, Counter())
        words = ", ".join(f"{result.classes[found]} ({times:,})" for found, times in wrong.most_common(MISTAKES))
        share = 1 - wrong.total() / number
        rows.append(
            {
                "label": label, "name": result.classes[label], "images": number, "share": share,
                "right": percent(share), "taken": words,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row["share"], row["label"]))[:WORST]


def _matrix(result: TrainingResult, pairs: Mapping[tuple[int, int], int]) -> list[dict[str, Any]]:
    """Give the rows of the confusion matrix, each number with its share of the class; nothing where it is too large."""
    names = result.classes
    if len(names) > MATRIX:
        return []
    rows = []
    for i, name in enumerate(names):
        numbers = [pairs.get((i, j), 0) for j in range(len(names))]
        total = sum(numbers) or 1
        cells = [
            {"number": number, "share": f"{number / total:.2f}", "style": "right" if i == j else "wrong"}
            for j, number in enumerate(numbers)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _data(data: DataRecord) -> list[tuple[str, str]]:
    facts = [("name", data.name)]
    facts += [(f"{name} images", f"{number:,}") for name, number in data.images.items()]
    facts += [("classes", f"{len(data.classes):,}")]
    facts += [("left out", f"{data.skipped:,} files that cannot be read")] if data.skipped else []
    return [*facts, ("digest", data.digest)]


def _preprocessing(how: Preprocessing) -> list[tuple[str, str]]:
    return [
        ("input", "×".join(map(str, how.input_size))),
        ("mean", ", ".join(f"{value:g}" for value in how.mean)),
        ("standard deviation", ", ".join(f"{value:g}" for value in how.std)),
        ("interpolation", how.interpolation),
        ("crop", f"{how.crop_mode}, {percent(how.crop_pct)}"),
    ]


def _open(run: TrainingRun, record: BundleRecord, result: TrainingResult) -> list[str]:
    """Say what nobody should take for proved."""
    converted = any(plan.applied for plan in record.plans)
    words = ["Nothing was converted, so nothing was proved."]
    if converted:
        words = [
            "The network no longer computes what the original does: the proofs are of the conversion before training."
        ]
    if result.split != "test":
        words.append(f"There are no test images; the {result.split} images have served the training.")
    words.append(f"The figures are of one run with seed {run.seed}: another seed gives others.")
    if converted:
        words.append("What the original comes to, trained alike: spdify finetune --compare-baseline measures it.")
    return words


def _facts(run: TrainingRun, record: BundleRecord) -> list[tuple[str, str]]:
    machine = run.machine
    how = [machine.device, f"{run.processes} process{'es' * (run.processes != 1)}"]
    how += [machine.amp] * (machine.amp != "no") + ["channels last"] * machine.channels_last
    how += ["torch.compile"] * machine.compiled + [f"{machine.parts} parts a batch"] * (machine.parts != 1)
    books = [plan.rulebook for plan in record.plans if plan.decisions]
    facts = [("source", f"{record.source.spec}, weights: {record.source.weights}")]
    facts += [("rulebook", ", ".join(books))] if books else []
    facts += [("seed", str(run.seed)), ("machine", ", ".join(how))]
    return [*facts, ("versions", ", ".join(f"{name} {number}" for name, number in run.versions.items()))]
