"""Many networks trained alike: a table with all of them, in words who is better, and accuracy against cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.reporting.figures import change, quantity
from spdify.reporting.markdown import table
from spdify.reporting.pictures import Dot, dot_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.reporting.studies import StudyPage

ORIGINAL = "original"


def verdicts(page: StudyPage, size: int) -> str:
    """Say which networks are better and which worse than the original, as far as the runs can say."""
    groups: dict[str, list[str]] = {"better than the original": [], "worse": [], "no clear difference": []}
    better, worse, unclear = groups.values()
    for arm in _ranked(page, size):
        if (arm, size) not in page.differences:
            continue
        mean, half, _ = page.differences[arm, size]
        words = f"{arm} ({100 * mean:+.2f} ± {100 * half:.2f})"
        (unclear if abs(mean) <= half else better if mean > 0 else worse).append(words)
    said = "; ".join(f"{name}: {', '.join(found)}" for name, found in groups.items() if found)
    if not said:
        best, *_ = _ranked(page, size)
        said = f"{best} is the best, with {page.accuracy(best, size)[0]:.2f}%"
    return f"At {size} px: {said}."


def contest_sections(page: StudyPage) -> list[str]:
    """Give the lines of a page about accuracy and cost, size by size."""
    lines = []
    for size in page.sizes:
        lines += [
            f"## Accuracy and cost at {size} px", "",
            *table(_head(page), [_row(page, arm, size) for arm in _ranked(page, size)], numbers_from=1), "",
            f"![Accuracy against MACs at {size} px](macs-{size}.svg)", "",
        ]  # fmt: skip
    basis = next((words for *_, words in page.differences.values()), "")
    lines += [
        f"Top-1 in percent on {page.images[page.split]:,} {page.split} images. Before: as converted, not trained yet.",
        f"After: of the epoch that was best on the validation images{_spread_words(page, basis)}.", "",
    ]  # fmt: skip
    if (count := len(page.differences)) > len(page.sizes):
        lines += [f"{count} comparisons: of twenty that make no difference, one may look as if it did by chance.", ""]
    if page.seconds:
        lines += [
            f"![Accuracy against time at {page.sizes[-1]} px](time.svg)", "",
            "Time is that of a forward pass at the largest size, in PyTorch on the CPU, batch 64, all in turn: median",
            "of nine rounds, as a ratio.", "",
        ]  # fmt: skip
    return lines


def _spread_words(page: StudyPage, basis: str) -> str:
    spread = ", mean and standard deviation over the seeds" if len(page.seeds) > 1 else ""
    return f"{spread}; of the difference to the original, the {basis}" if basis else spread


def contest_pictures(page: StudyPage) -> dict[str, str]:
    """Give the charts of accuracy against cost by file name."""
    found = {}
    for size in page.sizes:
        costs = {arm: page.of(arm, size)[0].result.cost.macs / 1e6 for arm in page.arms}
        found[f"macs-{size}.svg"] = _chart(page, size, costs, "MACs per image, millions")
    if page.seconds:
        base = page.seconds.get(ORIGINAL) or min(page.seconds.values())
        ratios = {arm: seconds / base for arm, seconds in page.seconds.items()}
        across = "time of a forward pass, times that of the " + ("original" if ORIGINAL in page.arms else "fastest")
        found["time.svg"] = _chart(page, page.sizes[-1], ratios, across)
    return found


def _chart(page: StudyPage, size: int, costs: dict[str, float], across: str) -> str:
    dots = [
        Dot(arm, costs[arm], *page.accuracy(arm, size), kind="original" if arm == ORIGINAL else "converted")
        for arm in page.arms
    ]
    words = "; ".join(f"{dot.label}: {dot.y:.2f}% at {dot.x:.4g}" for dot in dots)
    title = f"{page.model.rpartition('/')[2]} on {page.data}, {size} px"
    return dot_chart(title, f"Top-1 in percent, {across}. {words}.", dots, across=across, up=f"{page.split} top-1, %")


def _ranked(page: StudyPage, size: int) -> list[str]:
    """Order the networks from the best."""
    return sorted(page.arms, key=lambda arm: -page.accuracy(arm, size)[0])


def _head(page: StudyPage) -> Sequence[str]:
    return (
        "network", *(["before"] if page.starts else []), "after", *(["difference"] if page.differences else []),
        "parameters", "MACs", "activations", "time",
    )  # fmt: skip


def _row(page: StudyPage, arm: str, size: int) -> list[str]:
    runs = page.of(arm, size)
    cost, (mean, deviation) = runs[0].result.cost, page.accuracy(arm, size)
    cells = [arm]
    if page.starts:
        start = page.starts.get((arm, size))
        cells.append("" if start is None else f"{100 * start:.2f}")
    cells.append(f"{mean:.2f} ± {deviation:.2f}" if len(page.seeds) > 1 else f"{mean:.2f}")
    if page.differences:
        found = page.differences.get((arm, size))
        cells.append("" if found is None else f"{100 * found[0]:+.2f} ± {100 * found[1]:.2f}")
    base = page.of(ORIGINAL, size)[0].result.cost if ORIGINAL in page.arms else None
    for name in ("params", "macs", "activation_bytes"):
        own = getattr(cost, name)
        more = f" ({change(getattr(base, name), own)})" if base is not None and arm != ORIGINAL else ""
        cells.append(f"{quantity(own)}{'B' if name == 'activation_bytes' else ''}{more}")
    seconds, first = page.seconds.get(arm), page.seconds.get(ORIGINAL)
    cells.append(f"×{seconds / first:.2f}" if seconds and first and size == page.sizes[-1] else "")
    return cells
