"""Real signals to real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


# Where the tests run in the background, the shell has told them, and so their children, to ignore interrupts.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from spdify.cli import main
main()
"""


@pytest.mark.parametrize(
    ("step", "number", "code"),
    [("proving", signal.SIGINT, 130), ("writing, with ONNX", signal.SIGINT, 130), ("proving", signal.SIGTERM, 143)],
)
def test_signal(tmp_path: Path, step: str, number: signal.Signals, code: int) -> None:
    command = [
        sys.executable,
        "-c",
        START,
        "convert",
        "test_resnet",
        "--input-size",
        "3,64,64",
        "-o",
        "deep/out",
        "-v",
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if step in line:
                process.send_signal(number)
                break
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    if number == signal.SIGINT:
        assert "error: interrupted; nothing was left half-written" in stderr
    assert list(tmp_path.iterdir()) == []
