"""What a detector finds, in PyTorch and in ONNX Runtime: compared as sets.

A detector chooses: the best thousand, what overlaps no better one, what scores above a threshold. Where two candidates
are nearly equal, rounding decides which is chosen, and the order of what is found; compared number by number, equal
networks would differ. So each detection of PyTorch is given its counterpart: the nearest of the same label, with score
and box within a radius. Three figures are judged: how far counterparts are apart, how many detections have none, and of
how many the rest differs beyond that radius (masks are put to whole pixels, keypoints are the best of many places).

What rounding does is measured where one of them is too large: PyTorch in float64 against PyTorch in float32. With a
fresh network's weights that may be so much that the comparison says nothing; it is then not run, never passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spdify.records import Check
from spdify.verification.rounding import ROUNDING_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, Any]
    Found = Mapping[str, Array]
    Judge = Callable[[str, list[Array], list[Array], float], Check]

BOXES, LABELS, SCORES = "boxes", "labels", "scores"
#: Within this share of an output's largest magnitude two detections may be the same one: far above rounding, so that
#: what differs by more than rounding is seen as an error of a pair, and not as two that are strangers.
RADIUS = 1e-2
#: Shares of the detections whose choice rounding may tip: of being found at all, and of what is found with them. One is
#: always allowed the first.
UNMATCHED_LIMIT, TIPPED_LIMIT = 0.03, 0.1
#: Fewer different boxes say too little: that both sides find nothing is no agreement.
FEWEST = 10
STEEP_TOLERANCE = 5e-3  # above this share of an image's size nothing is rounding


@dataclass(frozen=True)
class Pairing:
    """Two sets of detections, paired.

    Attributes:
        found: How many PyTorch has found.
        others: How many the other side has found.
        pairs: How many have a counterpart.
        tipped: Of how many pairs something beside label, score and box differs by more than `RADIUS`.
        error: Largest difference within the pairs, each output relative to its largest magnitude; without what is
            tipped.
    """

    found: int
    others: int
    pairs: int
    tipped: int
    error: float

    @property
    def agrees(self) -> bool:
        """Whether no more differs than choices that rounding tips."""
        lost = max(self.found, self.others) - self.pairs
        return lost <= max(1.0, UNMATCHED_LIMIT * self.found) and self.tipped <= TIPPED_LIMIT * self.pairs

    @property
    def words(self) -> str:
        """The figures, for a check."""
        most = max(self.found, self.others)
        text = (
            f"{self.found} detections as a set, {(most - self.pairs) / (most or 1):.1%} without a counterpart "
            f"(allowed {UNMATCHED_LIMIT:.0%})"
        )
        return (
            f"{text}, of {self.tipped} masks or keypoints differ (allowed {TIPPED_LIMIT:.0%})" if self.tipped else text
        )


def are_detections(names: Sequence[str]) -> bool:
    """Whether outputs of these names are what a detector has found in one image."""
    return {BOXES, LABELS, SCORES}.issubset(names)


def compare_detections(
    name: str, reference: Found, found: Found, tolerance: float, precise: Callable[[], Found]
) -> Check:
    """Compare what is found in one image as sets.

    Args:
        name: Name of the check.
        reference: PyTorch's `boxes` (n, 4), `labels` (n), `scores` (n), and whatever else is found with each, by name.
        found: The same of ONNX Runtime.
        tolerance: Largest error within the pairs that is taken for rounding.
        precise: Gives what PyTorch finds in float64; asked only where something differs.

    Returns:
        The check, with that error. Failed where it is above the tolerance, where too many have no counterpart, and
        where an output has another shape or is not finite. Not run where PyTorch finds fewer than `FEWEST`
        different boxes, and where rounding alone does as much.
    """
    if obstacle := _obstacle(reference, found):
        return Check(name=name, outcome="failed", tolerance=tolerance, detail=obstacle)
    pairing = pair(reference, found)
    words = pairing.words
    if not pairing.agrees or pairing.error > tolerance:
        rounding = pair(precise(), reference)
        words = f"{words}; rounding alone moves PyTorch's own by {rounding.error:.0e}"
        if not rounding.agrees or rounding.error > STEEP_TOLERANCE:
            why = f"{words}, {rounding.words}: with these weights a comparison says nothing"
            return Check(name=name, outcome="not run", value=pairing.error, detail=why)
        tolerance = max(tolerance, min(ROUNDING_SHARE * rounding.error, STEEP_TOLERANCE))
    outcome: Literal["passed", "failed", "not run"] = "passed"
    if not pairing.agrees or pairing.error > tolerance:
        outcome = "failed"
    elif len(np.unique(reference[BOXES].round(3), axis=0)) < FEWEST:
        outcome, words = "not run", f"{words}: fewer than {FEWEST} different boxes say nothing"
    return Check(name=name, outcome=outcome, value=pairing.error, tolerance=tolerance, detail=words)


def judge_detections(names: Sequence[str], precise: Callable[[], list[Array]]) -> Judge:
    """Give what compares the outputs of these names, in their order, as `compare_detections` does."""

    def named(outputs: list[Array]) -> Found:
        return dict(zip(names, outputs, strict=True))

    def judge(name: str, reference: list[Array], found: list[Array], tolerance: float) -> Check:
        return compare_detections(name, named(reference), named(found), tolerance, lambda: named(precise()))

    return judge


def pair(reference: Found, found: Found) -> Pairing:
    """Give each detection of the reference, best first, the nearest of the other side that is left."""
    count, others = len(reference[SCORES]), len(found[SCORES])
    scales = {key: float(np.abs(a).max(initial=0.0)) or 1.0 for key, a in reference.items() if key != LABELS}
    distance = _distances(reference, found, scales)
    error, pairs, tipped = 0.0, 0, 0
    for row in np.argsort(-reference[SCORES], kind="stable") if others else ():
        column = int(distance[row].argmin())
        if distance[row, column] > RADIUS:
            continue
        rest = [
            _gap(reference[key][row], found[key][column]) / scale
            for key, scale in scales.items()
            if key not in {SCORES, BOXES}
        ]
        pairs, tipped = pairs + 1, tipped + any(gap > RADIUS for gap in rest)
        error = max(error, float(distance[row, column]), *(gap for gap in rest if gap <= RADIUS))
        distance[:, column] = np.inf
    return Pairing(count, others, pairs, tipped, error)


def _distances(reference: Found, found: Found, scales: Mapping[str, float]) -> Array:
    """Give the larger relative difference of score and box for each pair (n, m); infinite for different labels."""
    scores = np.abs(reference[SCORES][:, None].astype(np.float64) - found[SCORES][None]) / scales[SCORES]
    gaps = np.abs(reference[BOXES][:, None].astype(np.float64) - found[BOXES][None])
    distance: Array = np.maximum(scores, gaps.max(axis=2, initial=0.0) / scales[BOXES])
    distance[reference[LABELS][:, None] != found[LABELS][None]] = np.inf
    return distance


def _gap(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))


def _obstacle(reference: Found, found: Found) -> str:
    """Say why detections cannot be compared, or nothing."""
    if reference.keys() != found.keys():
        return f"expected {', '.join(reference)}, the file gives {', '.join(found)}"
    for key, a in reference.items():
        b = found[key]
        if a.shape[1:] != b.shape[1:] or len(b) != len(found[SCORES]):
            return f"{key}: expected shape {a.shape}, the file gives {b.shape}"
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return f"{key}: values are NaN or infinite"
    return ""
