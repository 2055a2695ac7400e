from __future__ import annotations

from typing import TYPE_CHECKING

import spdify
from spdify.exporting import OnnxModel, describe, described
from spdify.records import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

HOW = Preprocessing(input_size=(3, 8, 8), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def test_there_and_back() -> None:
    assert described(describe(HOW, ("ä", "b"))) == (HOW, ("ä", "b"))
    assert describe(None) == {}
    assert described({}) == (None, ())


def test_a_converted_model_s_file_says_how_images_become_inputs(tmp_path: Path) -> None:
    conversion = spdify.convert("test_resnet", input_size=(3, 64, 64))
    conversion.save(tmp_path / "out")
    how, classes = described(OnnxModel(tmp_path / "out" / "model.onnx").metadata)
    assert how == conversion.source.preprocessing
    assert classes == ()


def test_texts_without_end() -> None:
    assert described({"spdify.classes": "[" * 100_000}) == (None, ())
    assert described({"spdify.classes": "9" * 5000}) == (None, ())
