from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.launches import compare_measured, kill_launcher
from tests.faults.references import Moment, Reference
from tests.faults.short import run_short

if TYPE_CHECKING:
    from pathlib import Path

ONE = {"images": 12, "top1": 0.5, "top5": 1.0, "loss": 0.7, "calibration_error": 0.1}
#: A launcher whose worker takes no notice of its end.
LAUNCHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import sys, time; print('working', file=sys.stderr, flush=True); time.sleep(3)"],
               start_new_session=True)
"""


@pytest.mark.parametrize(
    ("change", "outcome"),
    [({}, "held"), ({"loss": 0.7 + 1e-8}, "held"), ({"loss": 0.71}, "wrong"), ({"top1": 0.6}, "wrong")],
)
def test_figures_of_two_processes(change: dict[str, float], outcome: str) -> None:
    assert compare_measured(ONE, ONE | change)[0] == outcome


def test_a_process_that_is_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
    monkeypatch.setattr("tests.faults.launches.END_S", 0.5)
    reference = Reference((str(tmp_path / "launcher.py"),), words="working", way=(sys.executable,))
    outcome, detail = kill_launcher(reference, Moment(loading=False, share=0.1))
    assert (outcome, "1 processes were left" in detail) == ("hang", True)


@pytest.mark.slow
def test_some_launches(tmp_path: Path) -> None:
    run_short("launches", tmp_path)
