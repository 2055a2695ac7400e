from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
#: A signal that comes while the interpreter runs a callback: Python drops what is raised there.
SWALLOWED = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from spdify.cli.signals import take_signals
take_signals()

class Gone:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0.01)

Gone()
try:
    time.sleep(20)
except KeyboardInterrupt:
    sys.exit(130)
"""
ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "from spdify.cli.signals import take_signals; take_signals()\\n"
                          "import time; print('ready', flush=True); time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_not_swallowed(number: signal.Signals, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(number=int(number))], env=ENVIRONMENT, capture_output=True, text=True,
        check=False, timeout=15,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")


def test_what_else_is_swallowed_is_told() -> None:
    code = SWALLOWED.replace("os.kill(os.getpid(), {number})", "raise ValueError('of a callback')").replace("20", "0")
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=15
    )
    assert "ValueError: of a callback" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to tell")
@pytest.mark.parametrize("launched", [True, False])
def test_processes_of_torchrun_end_with_it(launched: bool) -> None:
    env = ENVIRONMENT | ({"TORCHELASTIC_RUN_ID": "1"} if launched else {})
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    child = psutil.Process(int(next(word for word in said if word.isdigit())))
    parent.kill()
    parent.wait()
    time.sleep(0.5)
    left = child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    if left:
        child.kill()
    parent.stdout.close()
    assert left is not launched
