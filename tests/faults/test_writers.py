from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.processes import Done
from tests.faults.references import Reference
from tests.faults.short import run_short
from tests.faults.writers import judge, write_both

if TYPE_CHECKING:
    from pathlib import Path

WON, LOST = Done(0, "", ""), Done(1, "", "error: cannot write to out: it is not empty")
#: Writes without asking whether somebody else does.
UNLOCKED = """
import os, sys, time
print("working", file=sys.stderr, flush=True)
os.makedirs("out", exist_ok=True)
time.sleep(0.3)
open("out/file", "w").write("x")
"""


@pytest.mark.parametrize(
    ("ends", "overwrite", "outcome"),
    [
        ([WON, LOST], False, None),
        ([LOST, WON], False, None),
        ([WON, WON], False, "doubled"),
        ([WON, WON], True, None),
        ([LOST, LOST], False, "lost"),
        ([WON, Done(1, "", "error: no")], False, "wrong"),
        ([WON, Done(1, "", "Traceback (most recent call last)")], False, "traceback"),
        ([WON, Done(None, "", "")], False, "hang"),
    ],
)
def test_judgement(ends: list[Done], overwrite: bool, outcome: str | None) -> None:
    fault = judge(ends, overwrite=overwrite)
    assert (fault and fault[0]) == outcome


def test_a_missing_lock_is_told(tmp_path: Path) -> None:
    (tmp_path / "unlocked.py").write_text(UNLOCKED, encoding="utf-8")
    reference = Reference((str(tmp_path / "unlocked.py"),), words="working", way=(sys.executable,))
    assert write_both(reference, "out", 0.1)[0] == "doubled"


@pytest.mark.slow
def test_some_writers(tmp_path: Path) -> None:
    run_short("writers", tmp_path)
