from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spdify.datasets import open_detection_data
from spdify.detection import average_precision, find_all
from spdify.errors import DataError
from tests.detection.made import CATEGORIES, Knowing, answers, found, write_coco, write_yolo

if TYPE_CHECKING:
    from pathlib import Path


#: Two boxes of the same score, the wrong one first: at the first 51 of 101 recalls half of what was found is right.
SECOND_ONLY = 51 / 101 / 2


def test_both_formats_give_the_same_figures(tmp_path: Path) -> None:
    figures = []
    for dataset in (write_yolo(tmp_path / "yolo"), write_coco(tmp_path / "coco")):
        images = open_detection_data(str(dataset)).images
        findings = find_all(Knowing(answers(images, shift=3)), images, batch_size=2)
        figures.append(average_precision(images, findings.found, 3))
    assert figures[0].model_dump() == pytest.approx(figures[1].model_dump())
    # 3 pixels of 16 (and 24) leave an IoU of 13/19 (21/27), enough for 4 (6) thresholds; of 50 and 100 for 8 and 9.
    assert (figures[0].ap_medium, figures[0].ap_large) == pytest.approx((8 / 10, 9 / 10))
    # The small ones are of one class: for two thresholds one of two is right, and neither is surer.
    assert figures[0].ap_small == pytest.approx((4 + 2 * SECOND_ONLY) / 10)


def test_batches_and_workers(tmp_path: Path) -> None:
    images = open_detection_data(str(write_yolo(tmp_path / "yolo"))).images
    one, several = Knowing(answers(images)), Knowing(answers(images))
    alone, together = find_all(one, images, batch_size=3), find_all(several, images, batch_size=2, workers=1)
    assert (one.batches, several.batches) == ([3], [2, 1])
    assert alone.images_per_second is None  # one batch only warms up
    assert together.images_per_second is not None
    assert [f.boxes.tolist() for f in alone.found] == [f.boxes.tolist() for f in together.found]


def test_boxes_that_are_no_numbers(tmp_path: Path) -> None:
    images = open_detection_data(str(write_yolo(tmp_path / "yolo"))).images
    bad = found((0, math.nan, 0, 0, 1, 1), (0, 0.5, 0, 0, 1, math.inf), (1, 0.5, 0, 0, 1, 1))
    findings = find_all(Knowing([bad, found(), bad]), images, batch_size=3)
    assert findings.not_numbers == 4
    assert [len(one) for one in findings.found] == [1, 0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_off(tmp_path: Path, workers: int) -> None:
    file = write_coco(tmp_path / "coco") / "val2017" / "1.png"
    file.write_bytes(file.read_bytes()[:60])
    images = open_detection_data(str(tmp_path / "coco")).images
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png") as caught:
        find_all(Knowing(answers(images)), images, batch_size=2, workers=workers)
    assert "--skip-corrupt" in caught.value.hint


def test_labels_are_renumbered() -> None:
    mapped = found((17, 0.9, 0, 0, 1, 1), (5, 0.8, 0, 0, 2, 2), (18, 0.7, 0, 0, 3, 3)).renumbered({17: 0, 18: 1})
    assert mapped.labels.tolist() == [0, 1]
    assert mapped.boxes[:, 2].tolist() == [1, 3]
    assert len(found().renumbered({1: 0})) == 0


def test_figures_are_those_of_pycocotools_on_the_file(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    images = open_detection_data(str(folder)).images
    told = answers(images, shift=2)
    ours = average_precision(images, told, 3)
    results = [
        [10 + i, left, top, right - left, bottom - top, score, CATEGORIES[label]]
        for i, one in enumerate(told)
        for (left, top, right, bottom), score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]
    truth = COCO(str(folder / "annotations" / "instances_val2017.json"))
    evaluation = COCOeval(truth, truth.loadRes(np.array(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    theirs = [None if value < 0 else value for value in evaluation.stats]
    assert list(ours.model_dump().values()) == pytest.approx([*theirs[:6], theirs[8]])
