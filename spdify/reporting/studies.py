"""What came out of training networks side by side: a page, a table, pictures."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from spdify.reporting.contests import contest_pictures, contest_sections, verdicts
from spdify.reporting.documents import document_page
from spdify.reporting.figures import change, quantity
from spdify.reporting.markdown import table
from spdify.reporting.pictures import Line, line_chart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spdify.records import EpochResult, Recipe, StudyRun

COLUMNS = (
    "network", "size", "seed", "split", "top1", "top5", "loss", "calibration_error", "best_epoch", "parameters", "macs",
    "training_images_per_second", "training_seconds",
)  # fmt: skip
PAIR = ("converted", "original")


@dataclass(frozen=True)
class StudyPage:
    """All that the page of a study says.

    Attributes:
        model: Source of the network.
        data: Name of the data set.
        books: By network (arm), in order, the rulebooks that it was converted by; none for the original.
        recipe: How every network was trained.
        seeds: Of the runs.
        images: Number of images per split.
        command: What made it.
        versions: Of the packages.
        runs: All of them.
        differences: By network and size, converted less original: mean, half of the 95% interval (both as shares), and
            what the interval accounts for.
        seconds: Of a forward pass per image, by network, side by side on the CPU at the largest size.
        starts: By network and size, top-1 (as a share) before it was trained; empty where that was not measured.
    """

    model: str
    data: str
    books: Mapping[str, tuple[str, ...]]
    recipe: Recipe
    seeds: tuple[int, ...]
    images: Mapping[str, int]
    command: str
    versions: Mapping[str, str]
    runs: tuple[StudyRun, ...]
    differences: Mapping[tuple[str, int], tuple[float, float, str]]
    seconds: Mapping[str, float]
    starts: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Heights of the inputs, ascending."""
        return sorted({run.size for run in self.runs})

    @property
    def arms(self) -> list[str]:
        """What was trained: converted networks, and the original."""
        return [arm for arm in self.books if any(run.arm == arm for run in self.runs)]

    @property
    def is_pair(self) -> bool:
        """Whether one network is compared with its original, or with nothing."""
        return set(self.arms) <= set(PAIR)

    @property
    def split(self) -> str:
        """What was measured on."""
        return self.runs[0].result.split

    def of(self, arm: str, size: int) -> list[StudyRun]:
        """Give the runs of one network at one size, by seed."""
        return [run for run in self.runs if (run.arm, run.size) == (arm, size)]

    def accuracy(self, arm: str, size: int) -> tuple[float, float]:
        """Give the mean top-1 in percent over the seeds, and its standard deviation (0 for one seed)."""
        found = [100 * run.result.evaluation.top1 for run in self.of(arm, size)]
        return statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0


def study_files(page: StudyPage) -> dict[str, str]:
    """Give the texts of a study's files by name."""
    report = _report(page)
    pictures = {f"curves-{size}.svg": _curves(page, size) for size in page.sizes} if page.is_pair else {}
    pictures |= {} if page.is_pair else contest_pictures(page)
    if page.is_pair and len(page.sizes) > 1:
        pictures["sizes.svg"] = _by_size(page)
    html = document_page(f"{page.model} on {page.data}", report, pictures)
    return {"results.csv": _results(page), "report.md": report, "report.html": html, **pictures}


def headline(page: StudyPage) -> list[str]:
    """Say in a line per size which network is the better one, as far as that can be said."""
    if not page.is_pair:
        return [verdicts(page, size) for size in page.sizes]
    lines = []
    for size in page.sizes:
        if (PAIR[0], size) not in page.differences:
            mean, deviation = page.accuracy(page.arms[0], size)
            lines.append(
                f"At {size} px: {mean:.2f}% top-1 (standard deviation {deviation:.2f} over {len(page.seeds)} seeds)."
            )
            continue
        mean, half, basis = page.differences[PAIR[0], size]
        verdict = "no clear difference"
        if abs(mean) > half:
            verdict = "the converted network is better" if mean > 0 else "the original is better"
        lines.append(f"At {size} px: {verdict}: {100 * mean:+.2f} points ± {100 * half:.2f} ({basis}).")
    return lines


def _accuracy_rows(page: StudyPage) -> list[list[str]]:
    rows = []
    for size in page.sizes:
        cells = [f"{size}"]
        for arm in page.arms:
            mean, deviation = page.accuracy(arm, size)
            cells.append(f"{mean:.2f} ± {deviation:.2f}" if len(page.seeds) > 1 else f"{mean:.2f}")
        if (PAIR[0], size) in page.differences:
            mean, half, _ = page.differences[PAIR[0], size]
            cells.append(f"{100 * mean:+.2f} ± {100 * half:.2f}")
        rows.append(cells)
    return rows


def _cost_rows(page: StudyPage) -> list[list[str]]:
    size = page.sizes[-1]
    first = {arm: page.of(arm, size)[0].result for arm in page.arms}
    speed = {arm: statistics.fmean(run.result.images_per_second for run in page.of(arm, size)) for arm in page.arms}
    named = {
        "parameters": {arm: float(result.cost.params) for arm, result in first.items()},
        "MACs per image": {arm: float(result.cost.macs) for arm, result in first.items()},
        "activation memory per image, bytes": {arm: float(r.cost.activation_bytes) for arm, r in first.items()},
        "training images per second": speed,
        "forward pass per image, µs": {arm: 1e6 * seconds for arm, seconds in page.seconds.items()},
    }
    rows = []
    for name, values in named.items():
        cells = [name, *(quantity(values[arm]) for arm in page.arms)]
        if len(page.arms) > 1:
            cells.append(change(values["original"], values["converted"]))
        rows.append(cells)
    return rows


def _pair_sections(page: StudyPage) -> list[str]:
    compared = len(page.arms) > 1
    many = len(page.seeds) > 1
    spread = ", mean and standard deviation over the seeds; of the difference, the 95% interval" if many else ""
    return [
        f"## Accuracy on {page.images[page.split]:,} {page.split} images", "",
        f"Top-1 in percent, of the epoch that was best on the validation images{spread}.", "",
        *table(["size, px", *page.arms, *(["difference"] if compared else [])], _accuracy_rows(page), numbers_from=1),
        "", *(["![Accuracy by size](sizes.svg)", ""] if len(page.sizes) > 1 else []),
        "## Curves", "", *[f"![Validation accuracy at {size} px](curves-{size}.svg)" for size in page.sizes], "",
        f"## Cost at {page.sizes[-1]} px", "",
        *table(["", *page.arms, *(["change"] if compared else [])], _cost_rows(page), numbers_from=1), "",
        "The forward passes were timed in turn on the CPU, batch 64, median of nine rounds; training speed is that of",
        "whole epochs, and depends on what else the machine did.", "",
    ]  # fmt: skip


def _report(page: StudyPage) -> str:
    lines = [
        f"# {page.model} on {page.data}", "", *[f"- {line}" for line in headline(page)], "",
        *(_pair_sections(page) if page.is_pair else contest_sections(page)),
        "## How", "",
        _books_words(page),
        f"{'Both' if page.is_pair else 'All'} networks begin with the same weights, seed by seed, and see",
        f"the same images in the same order with the same augmentation: {page.images['train']:,} to train on,",
        f"{page.images.get('validation', 0):,} to choose the epoch by. {_sizes_words(page)}", "",
        f"Recipe `{page.recipe.name}`: {_recipe_words(page.recipe)}.", "",
        f"Seeds {', '.join(map(str, page.seeds))}.", "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in page.versions.items())}.",
    ]  # fmt: skip
    if page.command:
        lines += ["", "Made by:", "", "```", page.command, "```"]
    return "\n".join(lines) + "\n"


def _books_words(page: StudyPage) -> str:
    """Name the rulebooks; networks are called after theirs where there are several."""
    books = [book for arm in page.arms for book in page.books[arm]]
    return f"Converted with {', '.join(dict.fromkeys(PurePath(book).stem for book in books))}."


def _sizes_words(page: StudyPage) -> str:
    if len(page.sizes) == 1:
        return ""
    return "Smaller sizes: the images are resized (antialiased) and the network reads them at that size."


def recipe_fields(recipe: Recipe) -> dict[str, str]:
    """Give what a recipe does, by field; not what it leaves out."""
    unused = {"name"} if recipe.sched == "step" else {"name", "milestones", "decay_rate"}
    fields = recipe.model_dump(exclude=unused)
    return {key: str(value) for key, value in fields.items() if value not in (0, 0.0, None, "", ())}


def _recipe_words(recipe: Recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in recipe_fields(recipe).items())


def _results(page: StudyPage) -> str:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for run in page.runs:
        found, result = run.result.evaluation, run.result
        row = (
            run.arm, run.size, run.seed, result.split, found.top1, found.top5, found.loss, found.calibration_error,
            result.best_epoch, result.cost.params, result.cost.macs, result.images_per_second, result.seconds,
        )  # fmt: skip
        out.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def learning_curve(history: Sequence[EpochResult]) -> tuple[list[tuple[float, float]], str]:
    """Give validation accuracy in percent by epoch, or the training loss where nothing was held back; and its name."""
    if all(result.validation for result in history):
        return [(r.epoch, 100 * r.validation.top1) for r in history if r.validation], "validation top-1, %"
    return [(r.epoch, r.train_loss) for r in history], "training loss, nats"


def _curves(page: StudyPage, size: int) -> str:
    """Draw every run by epoch; one line per seed and network."""
    runs = [run for run in page.runs if run.size == size]
    found = [learning_curve(run.history) for run in runs]
    lines = [Line(label=run.arm, kind=run.arm, points=points) for run, (points, _) in zip(runs, found, strict=True)]
    up = found[0][1]
    ends = "; ".join(f"{line.label}: {line.points[-1][1]:.2f}" for line in lines)
    title = f"{page.model.rpartition('/')[2]} on {page.data}, {size} px"
    return line_chart(title, f"{up} by epoch, a line per seed. In the end {ends}.", lines, across="epoch", up=up)


def _by_size(page: StudyPage) -> str:
    """Draw accuracy by size, with the standard deviation over the seeds."""
    lines = []
    for arm in page.arms:
        found = [(size, *page.accuracy(arm, size)) for size in page.sizes]
        spread = [deviation for *_, deviation in found] if len(page.seeds) > 1 else ()
        lines.append(Line(label=arm, kind=arm, points=[(size, mean) for size, mean, _ in found], spread=spread))
    words = "; ".join(f"{line.label}: " + ", ".join(f"{y:.2f} at {x:g} px" for x, y in line.points) for line in lines)
    title = f"{page.model.rpartition('/')[2]} on {page.data}: accuracy by image size"
    return line_chart(title, f"Top-1 in percent. {words}.", lines, across="size, px", up=f"{page.split} top-1, %")
