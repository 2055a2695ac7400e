from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.kills import kill_convert, kill_training
from tests.faults.processes import Done
from tests.faults.references import Moment, Reference
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path


#: Says that it works, and writes its two files one after the other, in the folder itself: killed between, it has lost.
CARELESS = """
import os, sys, time
print("working", file=sys.stderr, flush=True)
os.mkdir("out")
for name in ("first", "second"):
    open(f"out/{name}", "w").write(name)
    time.sleep(1)
"""


def test_a_command_that_writes_in_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(CARELESS, encoding="utf-8")
    reference = Reference((str(tmp_path / "careless.py"),), words="working", way=(sys.executable,))
    outcome, detail = kill_convert(reference, Moment(loading=False, share=0.2))
    assert (outcome, "second is in one only" in detail) == ("wrong", True)


def test_a_training_that_cannot_be_resumed_is_told(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(CARELESS.replace('"out"', '"run"').replace("out/", "run/"), encoding="utf-8")
    reference = Reference((str(tmp_path / "careless.py"),), words="working", way=(sys.executable,))
    outcome, detail = kill_training(reference, (Moment(loading=False, share=0.2),))
    assert (outcome, "can't open file" in detail) == ("wrong", True)  # its --resume


@pytest.mark.parametrize(
    ("done", "outcome"),
    [
        (Done(0, "", ""), None),
        (Done(None, "", ""), "hang"),
        (Done(1, "", "Traceback (most recent call last)"), "traceback"),
        (Done(3, "", ""), "wrong"),
        (Done(-9, "", ""), "wrong"),
    ],
)
def test_ends(done: Done, outcome: str | None) -> None:
    fault = done.fault(0, 1)
    assert (fault and fault[0]) == outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kill_convert", "kill_sweep", "kill_training"])
def test_some_kills(name: str, tmp_path: Path) -> None:
    run_short(name, tmp_path)
