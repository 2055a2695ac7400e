"""The short form of a part, as the tests run it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.faults.parts import PARTS
from tests.faults.processes import ROOT, environment
from tests.faults.trials import read_trials

if TYPE_CHECKING:
    from pathlib import Path


def run_short(name: str, folder: Path) -> None:
    """Run a part in a process of its own, and see that every trial is good.

    Its trials are forked; they could not compute gradients if this process, which runs other tests, has done so.
    """
    command = [sys.executable, "-m", "tests.faults", name, "--short", "--seed", "1", "--jobs", "1", "-o", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    trials = list(read_trials(folder / f"{name}.jsonl"))
    # hypothesis drops command lines that it has given before
    assert PARTS[name].short // 2 < len(trials) <= PARTS[name].short, done.stderr
    assert [trial for trial in trials if not trial.good] == []
    assert done.returncode == 0, done.stderr
