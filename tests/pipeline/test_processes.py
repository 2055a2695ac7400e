"""Training in processes of their own. `tests/faults` kills them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow
ALONE = (sys.executable, "-m", "spdify")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spdify")
TRAIN = (
    "finetune", "test_resnet", "--data", "digits", "--epochs", "3", "--no-onnx", "--device", "cpu", "--proof", "site",
    "--recipe-set", "mixup=0.2", "--recipe-set", "ema_decay=0.9",
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PATIENCE = 240.0


def run(way: Sequence[str], *arguments: str) -> str:
    done = subprocess.run(
        [*way, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_number_of_processes_may_not_change(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*ALONE, *TRAIN, "-o", str(tmp_path / "run")], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("epoch 1 of 3" in line for line in process.stderr)
    process.kill()
    process.communicate()
    done = subprocess.run(
        [*TWO, "finetune", "--resume", str(tmp_path / "run")], env=ENVIRONMENT, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "with 2 processes: it began with 1" in done.stderr


def test_digits_as_the_readme_has_it(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [*ALONE, "finetune", "resnet18", "--data", "digits", "-o", str(tmp_path / "run")], capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spent = time.monotonic() - began
    measured = run(ALONE, "evaluate", str(tmp_path / "run" / "best"), "--data", "digits")
    assert measured == ""
    from spdify.pipeline.run_folder import RunFolder

    result = RunFolder(tmp_path / "run").result()
    assert result is not None
    assert result.evaluation.top1 > 0.95
    print(f"{spent:.0f} s")  # noqa: T201 - a figure to read, not to test: machines differ
