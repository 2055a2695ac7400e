from __future__ import annotations

import pytest

from spdify.records import Call, Inputs, InputSpec
from spdify.reporting.figures import change, inputs_text, quantity, shape


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1 k"), (999_949, "999.9 k"), (999_999, "1 M"), (25_557_032, "25.56 M"),
        (4_089_184_256, "4.089 G"), (3e12, "3 T"), (-25_557_032, "-25.56 M"),
    ],
)  # fmt: skip
def test_quantity(number: float, text: str) -> None:
    assert quantity(number) == text


def test_quantity_with_unit() -> None:
    assert quantity(12, "B") == "12 B"
    assert quantity(12_000, "B") == "12 kB"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (5, 5, "±0%"),
        (0, 5, "new"),
        (0, 0, "±0%"),
        (100, 150, "+50.0%"),
        (100, 0, "-100.0%"),
        (1e6, 1e6 + 10, "+0.001%"),
    ],
)
def test_change(before: float, after: float, text: str) -> None:
    assert change(before, after) == text


def test_shape() -> None:
    assert shape((Call(input=(1, 64, 56, 56), output=(1, 128, 28, 28)),)) == "64×56×56 → 128×28×28"
    assert shape(()) == ""


def test_inputs_text() -> None:
    inputs = Inputs(args=(InputSpec(shape=(1, 3, 8, 9)),), kwargs={"mask": InputSpec(shape=(1, 1, 8, 9))})
    assert inputs_text(inputs) == "3×8×9, mask 1×8×9"
