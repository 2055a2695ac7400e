"""A sweep as users run it, in a process of its own: workers cannot be forked from one that has computed gradients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from spdify.zoo.store import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


def command(folder: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "spdify", "zoo", "run", "-o", str(folder), *args]


def zoo(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *args), capture_output=True, text=True, check=False, timeout=300)


def lines(folder: Path) -> int:
    file = folder / "results.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_refusals_and_an_interrupt(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(command(folder, "--filter", "resnet*"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not lines(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = zoo(folder, "--filter", "resnet*", "--resume")
    assert second.returncode == 2
    assert "another run is writing there" in second.stderr
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert json.loads((folder / "sessions.jsonl").read_text().splitlines()[-1])["cut_short"] is True
    assert "holds a run already" in zoo(folder, "--filter", "resnet*").stderr
    assert "filter was" in zoo(folder, "--filter", "resnext*", "--resume").stderr


def test_exports_are_compared(tmp_path: Path) -> None:
    done = zoo(tmp_path / "run", "--filter", "timm:test_resnet")
    assert done.returncode == 0, done.stderr
    (export,) = RunFolder(tmp_path / "run").exports()
    assert (export.name, export.outcome) == ("timm.models.resnet", "passed")
    checks = {check.name: check for check in export.attempts[0].checks}
    assert checks["onnx perturbed weights"].outcome == "passed"


def test_from_a_process_with_gradients_it_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, torch\nfrom pathlib import Path\n"
        "with torch.device('meta'):\n    net = torch.nn.Linear(2, 2)\n"
        "from spdify.zoo.examine import examine\nfrom spdify.rulebook import load_rulebook\n"
        "examine('timm:test_resnet', load_rulebook('spd'))\n"
        "from spdify.zoo.sweep import sweep\nfrom spdify.zoo.records import SweepSettings\n"
        "from spdify.zoo.workers import Limits\nfrom unittest.mock import Mock\n"
        "settings = SweepSettings(filter='test_resnet')\n"
        "sweep(Path(sys.argv[1]), settings, limits=Limits(), resume=False, progress=Mock())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=120
    )
    assert "has computed gradients" in done.stderr
    assert lines(tmp_path / "run") == 0


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    done = zoo(tmp_path / "run", "--filter", "timm:test_resnet", "--memory", "0.1")
    if done.returncode:  # else the worker that does nothing ended before anybody looked
        assert done.returncode == 2
        assert "a worker that does nothing held more than 0.1 GB" in done.stderr
        assert "Give more by --memory." in done.stderr
    else:
        assert "1 models, 1 failed" in done.stdout
