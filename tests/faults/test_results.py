from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from spdify.zoo.records import ZooRecord
from spdify.zoo.store import RESULTS, RunFolder
from tests.faults.results import differences, line_differences

if TYPE_CHECKING:
    from pathlib import Path


def made(folder: Path) -> Path:
    folder.mkdir()
    save_file(
        {"weight": torch.zeros(3)}, folder / "model.safetensors", metadata={"history": '[{"seconds": 1, "a": 2}]'}
    )
    (folder / "report.json").write_text('{"cost": {"seconds": 1}, "sites": [1, 2]}', encoding="utf-8")
    (folder / "results.csv").write_text("epoch,loss,images,seconds\n1,0.5,20,3\n", encoding="utf-8")
    (folder / "page.html").write_text("took 1 s", encoding="utf-8")
    (folder / "model.onnx").write_bytes(b"graph")
    return folder


def test_time_is_no_difference(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    save_file({"weight": torch.zeros(3)}, two / "model.safetensors", metadata={"history": '[{"seconds": 9, "a": 2}]'})
    (two / "report.json").write_text('{"cost": {"seconds": 9}, "sites": [1, 2]}', encoding="utf-8")
    (two / "results.csv").write_text("epoch,loss,images,seconds\n1,0.5,99,9\n", encoding="utf-8")
    (two / "page.html").write_text("took 9 s", encoding="utf-8")
    (two / ".spdify.xyz.partial").mkdir()
    (two / ".spdify.xyz.partial" / "model.onnx").write_bytes(b"")
    assert differences(one, two) == []


@pytest.mark.parametrize("name", ["report.json", "results.csv", "model.onnx", "page.html"])
def test_all_else_is_one(name: str, tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    text = (two / name).read_text(encoding="utf-8")
    (two / name).write_text({"page.html": ""}.get(name, text.replace("5", "6").replace("2]", "3]").replace("g", "G")))
    assert differences(one, two) == [name]
    (two / name).unlink()
    assert differences(one, two) == [f"{name} is in one only"]


@pytest.mark.parametrize("weights", [torch.tensor([0.0, 0.0, -0.0]), torch.zeros(4), torch.zeros(3).half()])
def test_one_bit_of_a_weight_is_one(weights: torch.Tensor, tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    save_file({"weight": weights}, two / "model.safetensors", metadata={"history": '[{"seconds": 1, "a": 2}]'})
    assert differences(one, two) == ["model.safetensors"]


def test_a_figure_of_the_past_is_one(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    save_file({"weight": torch.zeros(3)}, two / "model.safetensors", metadata={"history": json.dumps([{"a": 3}])})
    assert differences(one, two) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("names", "seconds", "outcome"),
    [("ab", 9, None), ("a", 1, "lost"), ("aab", 1, "doubled"), ("aB", 1, "wrong")],
)
def test_lines(names: str, seconds: int, outcome: str | None, tmp_path: Path) -> None:
    for folder, found, took in (("one", "ab", 1), ("two", names, seconds)):
        (tmp_path / folder).mkdir()
        for name in found:
            record = ZooRecord(
                name=name.lower(), family="f" if name.islower() else "g", outcome="exact", wall_seconds=took,
            )  # fmt: skip
            RunFolder(tmp_path / folder).append(RESULTS, record)
    found = line_differences(tmp_path / "one", tmp_path / "two")
    assert (found and found[0]) == outcome
