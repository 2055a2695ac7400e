from __future__ import annotations

import re
from html import unescape

import pytest

from spdify.records import (
    BundleRecord,
    DataRecord,
    EpochResult,
    Evaluation,
    Machine,
    Measure,
    Preprocessing,
    Source,
    TrainingResult,
    TrainingRun,
)
from spdify.reporting.pictures import Line, line_chart
from spdify.reporting.training_page import training_page
from spdify.training import make_recipe

HOSTILE = "</script><img src=x onerror=alert(1)>"
FOUND = Evaluation(images=8, top1=0.625, top5=1.0, loss=1.25, calibration_error=0.03125)
CURVES = line_chart("Curves", "up", [Line("top-1", "converted", [(1, 20.0), (2, 62.5)])], across="epoch", up="top-1")
PAIRS = {(0, 0): 3, (0, 1): 1, (1, 1): 2, (1, 0): 2}


def run(classes: tuple[str, ...] = ("cat", "dog"), **changes: object) -> TrainingRun:
    known = DataRecord(name="animals", classes=classes, images={"train": 1200, "test": 8}, digest="ab12")
    fields: dict[str, object] = {
        "model": "net.py:build", "data": "animals", "data_folder": "/secret/place", "channels": 3, "known": known,
        "validation_share": 0.1, "skip_corrupt": False, "seed": 7, "machine": Machine(device="cpu"), "processes": 1,
        "preprocessing": Preprocessing(input_size=(3, 8, 9), mean=(0.5,), std=(0.25,)),
        "recipe": make_recipe("finetune", {"epochs": 2, "lr": 0.002}), "versions": {"torch": "2.14.0"},
        "command": "spdify finetune net.py:build --data animals",
    }  # fmt: skip
    return TrainingRun.model_validate(fields | changes)


def result(classes: tuple[str, ...] = ("cat", "dog"), **changes: object) -> TrainingResult:
    fields: dict[str, object] = {
        "model": "net.py:build", "best_epoch": 2, "chosen_by": "validation", "split": "test", "evaluation": FOUND,
        "classes": classes, "cost": Measure(params=2722, macs=137400, activation_bytes=9, weight_bytes=11100),
        "images_per_second": 3688.0, "seconds": 12.5,
    }  # fmt: skip
    return TrainingResult.model_validate(fields | changes)


def record(**changes: object) -> BundleRecord:
    source = Source(spec="net.py:build", kind="code", name="build", weights="random, seed 7")
    fields: dict[str, object] = {
        "source": source, "plans": (), "seed": 7, "versions": {}, "proof": "none", "checks": (),
    }  # fmt: skip
    return BundleRecord.model_validate(fields | changes)


def history(validation: Evaluation | None = FOUND) -> list[EpochResult]:
    return [
        EpochResult(epoch=i, lr=0.002 / i, train_loss=2.5 / i, images_per_second=4000, seconds=6, validation=validation)
        for i in (1, 2)
    ]


def tables(page: str) -> list[list[list[str]]]:
    """Cells of the tables, without their marks."""
    found = []
    for body in re.findall(r"<table.*?</table>", page, re.DOTALL):
        rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
        cells = [re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[unescape(re.sub(r"<.*?>", "", cell)) for cell in row] for row in cells])
    return found


def test_the_figures_are_those_of_the_result() -> None:
    page = training_page(run(), record(), result(), history(), CURVES, PAIRS)
    shown = dict(re.findall(r'<span data-json="(.*?)">(.*?)</span>', page))
    assert shown == {
        "evaluation.top1": "62.50%", "evaluation.top5": "100.00%", "evaluation.loss": "1.2500", "cost.macs": "137.4 k",
        "evaluation.calibration_error": "0.0312", "cost.params": "2.722 k", "seconds": "12 s",
    }  # fmt: skip
    assert "net.py:build, epoch 2 (best on the validation images): 8 test images: top-1 62.50%, top-5 100.00%" in page
    epochs, matrix, classes = tables(page)
    assert epochs[1:] == [
        ["1", "0.002", "2.5000", "1.2500", "62.50%", "100.00%", "0.0312", "4000", "6.0"],
        ["2 (taken)", "0.001", "1.2500", "1.2500", "62.50%", "100.00%", "0.0312", "4000", "6.0"],
    ]
    assert matrix == [["", "cat", "dog"], ["cat", "3", "1"], ["dog", "2", "2"]]
    assert classes[1:] == [["dog", "4", "50%", "cat (2)"], ["cat", "4", "75%", "dog (1)"]]
    assert CURVES.strip() in page


def test_it_says_how_to_make_it_again_and_what_is_open() -> None:
    page = training_page(run(), record(), result(split="validation"), history(None), CURVES, PAIRS)
    for words in (
        "<pre><code>spdify finetune net.py:build --data animals</code></pre>", "<dt>seed</dt><dd>7</dd>",
        "<dt>versions</dt><dd>torch 2.14.0</dd>", "<dt>train images</dt><dd>1,200</dd>", "<dt>digest</dt><dd>ab12</dd>",
        "<dt>input</dt><dd>3×8×9</dd>", "<dt>lr</dt><dd>0.002</dd>", "<li>Nothing was converted",
        "There are no test images; the validation images have served the training.",
    ):  # fmt: skip
        assert words in page, words
    assert "/secret/place" not in page
    assert "validation loss" not in page  # there were no figures to put there
    assert "made in Python" in training_page(run(command=""), record(), result(), history(), CURVES, PAIRS)


@pytest.mark.parametrize("number", [21, 300])
def test_many_classes_have_no_matrix_and_a_list_of_the_worst(number: int) -> None:
    names = tuple(f"class {i}" for i in range(number))
    pairs = {(i, i): 10 for i in range(number)} | {(4, 5): 90}
    page = training_page(run(names), record(), result(names), history(), CURVES, pairs)
    _, classes = tables(page)
    assert classes[1] == ["class 4", "100", "10%", "class 5 (90)"]
    assert len(classes) == 1 + min(number, 200)
    assert ("200 of 300" in page) == (number == 300)


def test_hostile_names_stay_words_and_nothing_is_loaded() -> None:
    names = (HOSTILE, '" onfocus="x')
    fields = {"model": HOSTILE, "command": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    page = training_page(run(names, **fields), record(), result(names, model=HOSTILE), history(), CURVES, PAIRS)
    assert "<img" not in page
    assert page.count("</script>") == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r'<[^>]*\sonfocus="x', page)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert set(re.findall(r'href="([^"#]+)"', page)) == {"best/README.md", "best/report.html"}
    assert not re.search(r"<(?:link|iframe|object|embed)\b|@import|url\(", page)
