from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.tool_speed import convert_apart, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

LARGE = "convnext_xlarge"  # 350 M parameters, so proved at level `site`
BOUND = 1.35

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")]


def test_random_weights_are_held_once() -> None:
    found = convert_apart(LARGE)
    assert found["proof"] == "site"
    assert found["ratio"] < BOUND


def test_a_checkpoint_s_weights_are_held_once(tmp_path: Path) -> None:
    write_checkpoint(LARGE, tmp_path / "w.safetensors")
    found = convert_apart(LARGE, tmp_path / "w.safetensors")
    assert found["proof"] == "site"
    assert found["ratio"] < BOUND
