from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.clock import HOUR_S, jump, odd_times
from tests.faults.references import Reference
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path

#: Measures by the clock on the wall.
WALL = """
import json, os, sys, time
print("working", file=sys.stderr, flush=True)
began = time.time()
time.sleep(0.5)
os.mkdir("out")
json.dump({"seconds": time.time() - began}, open("out/report.json", "w"))
"""


@pytest.mark.parametrize(("seconds", "odd"), [(3.0, False), (-3.0, True), (5 * HOUR_S, True)])
def test_times_that_cannot_be(seconds: float, odd: bool, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"cost": [{"wall_seconds": seconds}]}), encoding="utf-8")
    assert bool(list(odd_times(tmp_path, HOUR_S))) is odd


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_on_the_wall_is_told(hours: int, tmp_path: Path) -> None:
    (tmp_path / "wall.py").write_text(WALL, encoding="utf-8")
    reference = Reference((str(tmp_path / "wall.py"),), words="working", way=(sys.executable,))
    outcome, detail = jump(reference, "out", 0.5, hours * HOUR_S)
    assert (outcome, "report.json" in detail) == ("wrong", True)


@pytest.mark.slow
def test_some_jumps(tmp_path: Path) -> None:
    run_short("clock", tmp_path)
