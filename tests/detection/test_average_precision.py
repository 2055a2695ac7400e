"""Figures against those worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spdify.datasets import LabelledImage, LabelledObject
from spdify.detection import average_precision, count_objects, require_pycocotools
from spdify.errors import DataError, SpdifyError
from tests.detection.made import answers, found

HERE = Path("a.png")


def image(*objects: LabelledObject) -> LabelledImage:
    return LabelledImage(HERE, 640, 640, objects)


def near(*figures: float) -> object:
    return pytest.approx(figures)


def thing(x: float, y: float, w: float, h: float, *, label: int = 0, crowd: bool = False) -> LabelledObject:
    return LabelledObject(label, (x, y, w, h), w * h, crowd)


def test_the_truth_is_all_right() -> None:
    truth = [image(thing(0, 0, 20, 20), thing(100, 100, 50, 50, label=1)), image()]
    got = average_precision(truth, answers(truth), 2)
    assert (got.ap, got.ap50, got.ap75, got.ap_small, got.ap_medium, got.ar100) == near(1, 1, 1, 1, 1, 1)
    assert got.ap_large is None  # there is none


def test_precision_falls_with_what_is_wrong() -> None:
    truth = [image(thing(0, 0, 100, 100), thing(300, 300, 100, 100))]
    right, wrong, last = (0, 0.9, 0, 0, 100, 100), (0, 0.8, 500, 0, 600, 100), (0, 0.7, 300, 300, 400, 400)
    got = average_precision(truth, [found(right, wrong, last)], 1)
    # At recalls 0 to .5 (51 of 101) the precision is 1; from there on two of three boxes are right.
    assert got.ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert got.ar100 == 1


def test_overlap_decides() -> None:
    truth = [image(thing(0, 0, 100, 100))]
    got = average_precision(truth, [found((0, 0.9, 20, 0, 120, 100))], 1)  # IoU 80 / 120
    assert (got.ap, got.ap50, got.ap75) == near(4 / 10, 1, 0)  # .50, .55, .60, .65


def test_sizes_are_apart() -> None:
    truth = [image(thing(0, 0, 16, 16), thing(100, 100, 200, 200))]
    got = average_precision(truth, [found((0, 0.9, 0, 0, 16, 16))], 1)
    assert (got.ap_small, got.ap_large) == near(1, 0)
    assert got.ap_medium is None
    assert got.ap == pytest.approx(51 / 101)


def test_classes_count_alike() -> None:
    truth = [image(thing(0, 0, 50, 50), thing(100, 0, 50, 50), thing(200, 0, 50, 50, label=1))]
    got = average_precision(truth, [found((1, 0.9, 200, 0, 250, 50))], 3)  # the third class is in no image
    assert got.ap == pytest.approx(1 / 2)


def test_what_is_found_in_a_crowd_is_not_wrong() -> None:
    one, many = thing(0, 0, 50, 50), thing(100, 100, 400, 400, crowd=True)
    boxes = [found((0, 0.9, 200, 200, 250, 250), (0, 0.8, 0, 0, 50, 50))]
    assert average_precision([image(one, many)], boxes, 1).ap == pytest.approx(1)
    assert average_precision([image(one)], boxes, 1).ap == pytest.approx(1 / 2)


def test_nothing_found() -> None:
    got = average_precision([image(thing(0, 0, 50, 50))], [found()], 1)
    assert (got.ap, got.ar100, got.ap_small) == (0, 0, None)
    with pytest.raises(DataError, match="0 findings with 1 images"):
        average_precision([image()], [], 1)


def test_counts() -> None:
    truth = [image(thing(0, 0, 32, 32), thing(0, 0, 31, 31), thing(0, 0, 96, 97), thing(0, 0, 9, 9, crowd=True))]
    counts = count_objects(truth)
    assert (counts.total, counts.small, counts.medium, counts.large, counts.crowds) == (3, 2, 1, 1, 1)


def test_it_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    truth = [image(thing(0, 0, 20, 20))]
    average_precision(truth, answers(truth), 1)
    assert capfd.readouterr() == ("", "")


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(SpdifyError, match="cannot compute average precision") as caught:
        require_pycocotools()
    assert caught.value.hint == "pip install 'spdify[detection]'"
