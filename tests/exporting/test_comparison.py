"""The figure, and what it takes to pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spdify.exporting.comparison import compare

if TYPE_CHECKING:
    from spdify.records import Check

A = np.array([[1.0, -4.0], [2.0, 3.0]], dtype=np.float32)


def outcome(*pairs: tuple[np.ndarray, np.ndarray], tolerance: float = 1e-4) -> Check:
    return compare("it", [a for a, _ in pairs], [b for _, b in pairs], tolerance)


def test_the_error_is_relative_to_the_largest_magnitude() -> None:
    check = outcome((A, A + np.float32(0.5)))
    assert (check.outcome, check.value, check.tolerance) == ("failed", 0.125, 1e-4)


def test_each_output_has_its_own_scale_and_the_worst_counts() -> None:
    check = outcome((A, A), (1e6 * A, 1e6 * A + 100), (1e-6 * A, 1e-6 * A + np.float32(1e-6)))
    assert check.outcome == "failed"
    assert check.value == pytest.approx(0.25, rel=1e-5)
    assert check.detail == "output 2 of 3 differs"


def test_within_tolerance_passes_and_says_the_figure() -> None:
    check = outcome((A, A + np.float32(1e-4)))
    assert check.outcome == "passed"
    assert check.value == pytest.approx(2.5e-5, rel=1e-2)


@pytest.mark.parametrize("wild", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_not_finite_fail_even_where_both_have_them(wild: float, side: int) -> None:
    bad = A.copy()
    bad[0, 0] = wild
    pair = (bad, A) if side == 0 else (A, bad)
    assert outcome(pair).outcome == "failed"
    assert outcome((bad, bad)).outcome == "failed"


def test_another_number_of_outputs_or_another_shape_fails() -> None:
    assert compare("it", [A, A], [A], 1e-4).outcome == "failed"
    assert compare("it", [], [], 1e-4).outcome == "failed"
    assert outcome((A, A[:1])).outcome == "failed"


@pytest.mark.parametrize(
    "constant",
    [
        np.zeros((3, 2)),
        np.zeros((1, 1)),
        np.full((3, 2), 7.0),
        np.full((1, 4), 7.0),
        np.tile([1.0, 2.0], (3, 1)),
        np.empty((3, 0)),
    ],
    ids=["zero", "one zero", "seven", "seven at batch 1", "bias", "empty"],
)
def test_constant_outputs_prove_nothing(constant: np.ndarray) -> None:
    assert outcome((constant, constant)).outcome == "not run"


def test_a_constant_that_differs_fails() -> None:
    zero = np.zeros((3, 2))
    assert outcome((zero, zero + 1)).outcome == "failed"


def test_one_constant_output_among_others_is_named() -> None:
    zero = np.zeros((3, 2))
    check = outcome((A, A), (zero, zero))
    assert check.outcome == "passed"
    assert "output 1 of 2" in check.detail


def test_one_number_is_enough() -> None:
    assert outcome((np.array([[3.0]]), np.array([[3.0]]))).outcome == "passed"


def test_integers_and_booleans_subtract() -> None:
    low = np.array([0, 255], dtype=np.uint8)
    assert outcome((low, low[::-1])).value == 1.0
    yes = np.array([[True, False]])
    assert outcome((yes, ~yes)).outcome == "failed"
    assert outcome((yes, yes)).outcome == "passed"
