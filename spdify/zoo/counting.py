"""What the lines of a run add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from spdify.zoo.records import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spdify.records import Check, Measure
    from spdify.zoo.records import Outcome, SiteGroup, ZooRecord

#: Strided operators of timm 1.0.31 and torchvision 0.29.1 at default sizes in eval mode, from a count of its own: a
#: dispatch mode over plain forward passes, with nothing of this package in it. It ran each model at the size of its
#: published weights, where torchvision's vit_h_14, built without these weights for 224 pixels, does not run: its patch
#: embedding (14x14, stride 14) is the one convolution that a sweep finds besides.
INDEPENDENT_COUNT = {"conv": 7239, "max_pool": 589, "avg_pool": 1130}
ACTIONS = ("applied", "kept", "refused")
CONVERTED = ("exact", "partial", "approximate")


@dataclass(frozen=True)
class Reason:
    """Why sites are kept or refused: how many, in how many models, and where for example."""

    action: str
    operator: str
    text: str
    sites: int
    models: int
    example: str


def outcomes(records: Iterable[ZooRecord]) -> dict[Outcome, int]:
    """Count models by outcome, all outcomes in their order."""
    counted = Counter(record.outcome for record in records)
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def sites_by_operator(records: Iterable[ZooRecord]) -> dict[str, Counter[str]]:
    """Count sites by operator and action."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for group in record.sites:
            counted[group.operator][group.action] += group.count
    return dict(sorted(counted.items()))


def eval_sites(records: Iterable[ZooRecord]) -> Counter[str]:
    """Count the sites that run in eval mode, by operator, as the independent count does: a blur is a convolution."""
    counted: Counter[str] = Counter()
    for record in records:
        for group in record.sites:
            operator = "conv" if group.operator == "blur_pool" else group.operator
            counted[operator] += group.count if "eval" in group.modes else 0
    return counted


def reasons(records: Iterable[ZooRecord]) -> list[Reason]:
    """List why sites are kept or refused, the most frequent first."""
    found: dict[tuple[str, str, str], list[tuple[ZooRecord, SiteGroup]]] = defaultdict(list)
    for record in records:
        for group in record.sites:
            if group.action != "applied":
                found[group.action, group.operator, group.reason].append((record, group))
    listed = [
        Reason(
            *key,
            sites=sum(group.count for _, group in pairs),
            models=len({record.name for record, _ in pairs}),
            example=f"{pairs[0][0].name} {pairs[0][1].example}",
        )
        for key, pairs in found.items()
    ]
    return sorted(listed, key=lambda reason: (-reason.sites, reason.text))


def failures(records: Iterable[ZooRecord]) -> dict[tuple[str, str], list[ZooRecord]]:
    """Group failed models by step and kind, the most frequent first."""
    found: dict[tuple[str, str], list[ZooRecord]] = defaultdict(list)
    for record in records:
        if record.failure is not None:
            found[record.failure.stage, record.failure.kind].append(record)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def families(records: Iterable[ZooRecord]) -> dict[str, list[ZooRecord]]:
    """Group models by family, in alphabetical order."""
    found: dict[str, list[ZooRecord]] = defaultdict(list)
    for record in records:
        found[record.family].append(record)
    return dict(sorted(found.items()))


def changes(records: Iterable[ZooRecord], figure: Callable[[Measure], int]) -> list[float]:
    """Give the relative change of a figure (0.1 is +10 %) of every converted model, in ascending order."""
    pairs = [(figure(r.before), figure(r.after)) for r in records if r.before is not None and r.after is not None]
    return sorted(after / before - 1 for before, after in pairs if before)


def spread(values: Sequence[float]) -> tuple[float, ...]:
    """Give least, quarter, median, three quarters and largest of ascending values."""
    at = [values[round(share * (len(values) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    at[2] = median(values)
    return tuple(at)


def worst_checks(records: Iterable[ZooRecord]) -> dict[str, tuple[Check, str, int]]:
    """Give, for each check with a figure that passed, the largest one with its model, and how many there are."""
    worst: dict[str, tuple[Check, str]] = {}
    counted: Counter[str] = Counter()
    for record in records:
        for check in record.checks:
            if check.outcome != "passed" or check.value is None or check.tolerance is None:
                continue
            counted[check.name] += 1
            known = worst.get(check.name)
            if known is None or (known[0].value or 0.0) < check.value:
                worst[check.name] = (check, record.name)
    return {name: (*pair, counted[name]) for name, pair in worst.items()}


def check_outcomes(records: Iterable[ZooRecord]) -> dict[str, Counter[str]]:
    """Count checks by name and outcome."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for check in record.checks:
            counted[check.name][check.outcome] += 1
    return dict(counted)
