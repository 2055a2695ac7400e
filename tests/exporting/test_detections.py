"""Detections as sets: their order is of no account, what differs is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spdify.exporting.detections import FEWEST, RADIUS, are_detections, compare_detections, pair

if TYPE_CHECKING:
    from spdify.records import Check

    Array = np.ndarray[Any, Any]

COUNT, TOLERANCE = 40, 1e-4


def detections(count: int = COUNT, **more: tuple[int, ...]) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 80, (count, 2))
    found = {
        "boxes": np.concatenate([corner, corner + generator.uniform(5, 20, (count, 2))], axis=1),
        "labels": generator.integers(1, 5, count),
        "scores": generator.uniform(0.1, 0.9, count),
    }
    return found | {name: generator.uniform(0, 1, (count, *shape)) for name, shape in more.items()}


def picked(found: dict[str, Array], rows: Any) -> dict[str, Array]:  # noqa: ANN401 - any index of NumPy
    return {name: array[rows].copy() for name, array in found.items()}


def check(reference: dict[str, Array], found: dict[str, Array], precise: dict[str, Array] | None = None) -> Check:
    return compare_detections("it", reference, found, TOLERANCE, lambda: precise or reference)


def test_order_is_of_no_account() -> None:
    found = detections(masks=(1, 8, 8))
    judged = check(found, picked(found, slice(None, None, -1)))
    assert (judged.outcome, judged.value) == ("passed", 0.0)
    assert "40 detections as a set, 0.0% without a counterpart" in judged.detail


def test_one_may_be_lost_to_a_choice() -> None:
    found = detections()
    assert check(found, picked(found, slice(1, None))).outcome == "passed"
    assert check(found, picked(found, slice(2, None))).outcome == "failed"
    assert check(picked(found, slice(2, None)), found).outcome == "failed"


@pytest.mark.parametrize("name", ["boxes", "scores", "masks"])
def test_a_small_error_of_one_pair_is_seen(name: str) -> None:
    found = detections(masks=(1, 8, 8))
    other = picked(found, slice(None))
    other[name][7] += 0.1 * RADIUS * np.abs(found[name]).max()
    judged = check(found, other)
    assert judged.outcome == "failed"
    assert judged.value == pytest.approx(0.1 * RADIUS)


def test_other_labels_are_other_detections() -> None:
    found = detections()
    other = picked(found, slice(None))
    other["labels"] = other["labels"] % 4 + 1
    assert check(found, other).outcome == "failed"


def test_few_masks_may_be_tipped_and_not_many() -> None:
    found = detections(masks=(1, 8, 8))
    for count, outcome in ((4, "passed"), (5, "failed")):
        other = picked(found, slice(None))
        other["masks"][:count] += 0.5
        assert check(found, other).outcome == outcome


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_prove_nothing(count: int) -> None:
    assert check(detections(count), detections(count)).outcome == "not run"


def test_the_same_box_again_and_again_proves_nothing() -> None:
    found = detections()
    found["boxes"][:] = found["boxes"][0]
    assert check(found, found).outcome == "not run"


def test_what_one_side_alone_finds_fails() -> None:
    none = picked(detections(), slice(0))
    assert check(none, detections(), none).outcome == "failed"
    assert check(detections(), none).outcome == "failed"


def test_rounding_excuses_as_much_as_itself_and_no_more() -> None:
    found = detections()
    rounded, off, far = (picked(found, slice(None)) for _ in range(3))
    rounded["scores"] += 1e-4 * found["scores"].max()
    off["scores"] -= 8e-4 * found["scores"].max()
    far["scores"] -= 3e-3 * found["scores"].max()
    judged = check(found, off, rounded)
    assert (judged.outcome, judged.tolerance) == ("passed", pytest.approx(1e-3, rel=1e-2))
    assert "rounding alone" in judged.detail
    assert check(found, far, rounded).outcome == "failed"


def test_where_rounding_alone_chooses_nothing_is_said() -> None:
    found = detections()
    other = picked(found, slice(COUNT // 2))
    assert check(found, other, other).outcome == "not run"


def test_shapes_names_and_nan_are_faults() -> None:
    found = detections()
    assert check(found, {name: found[name] for name in ("boxes", "labels")}).outcome == "failed"
    assert check(found, found | {"boxes": found["boxes"][:, :3]}).outcome == "failed"
    assert check(found, found | {"scores": found["scores"] * np.nan}).outcome == "failed"


def test_each_has_one_counterpart() -> None:
    found = detections(1)
    twice = picked(found, [0, 0])
    assert (pair(twice, found).pairs, pair(found, twice).pairs) == (1, 1)


def test_names_tell() -> None:
    assert are_detections(["boxes", "labels", "scores", "masks"])
    assert not are_detections(["boxes", "scores"])
