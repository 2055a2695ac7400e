"""spdify forked from a process that has its libraries: seconds sooner at work than a new interpreter."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIBRARIES = (
    "spdify.cli.app", "spdify.cli.render", "spdify.pipeline.finetuning", "spdify.pipeline.studying",
    "spdify.pipeline.exporting", "spdify.pipeline.benchmarking", "spdify.zoo.sweep", "onnxscript", "onnxruntime",
    "torch.onnx._internal.exporter._core", "torchvision", "accelerate",
)  # fmt: skip
LOOK_S = 0.005


def import_libraries() -> None:
    """Import what the commands import."""
    for name in LIBRARIES:
        importlib.import_module(name)


class Forked:
    """A process like `subprocess.Popen`'s, that runs `spdify.cli.main` in a session of its own."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, env: Mapping[str, str], out: Path, err: Path) -> None:
        """Start it; its streams are files."""
        self.args, self.returncode = tuple(arguments), None
        self.returncode: int | None
        self.pid = os.fork()
        if self.pid == 0:
            _be_spdify(arguments, folder, env, out, err)

    def poll(self) -> int | None:
        """Give the exit code; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(LOOK_S)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _be_spdify(arguments: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, err: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(env)
        for number, file in ((0, os.devnull), (1, out), (2, err)):
            opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until it ends
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(folder)
        sys.argv = ["spdify", *arguments]
        torch.set_num_threads(1)  # makes the broken pool of the fork anew, before autograd's threads do so at once
        code = _run()
        sys.stdout.flush()
    finally:
        os._exit(code)


def _run() -> int:
    """Run the command, and end as the interpreter would."""
    from spdify.cli import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0
