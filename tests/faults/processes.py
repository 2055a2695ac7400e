"""Commands: real processes in sessions of their own, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.faults.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.trials import Outcome

ROOT = Path(__file__).parents[2]
SPDIFY = (sys.executable, "-m", "spdify")  # in a new interpreter
PATIENCE_S = 120.0  # for a command that takes some ten seconds
LOOK_S = 0.005
#: What no user should ever see.
UNEXPECTED = ("Traceback (most recent call last)", "spdify failed unexpectedly", "Exception ignored")
STRAY = ".spdify."  # begins the name of what is still being written


@dataclass(frozen=True)
class Done:
    """How a command ended; `code` is None where it had to be killed."""

    code: int | None
    out: str
    err: str

    def fault(self, *codes: int) -> tuple[Outcome, str] | None:
        """Say what is wrong with an end that should have one of these exit codes."""
        if self.code is None:
            return "hang", self.err[-300:]
        if any(words in self.err + self.out for words in UNEXPECTED):
            return "traceback", (self.err + self.out)[-1500:]
        if self.code not in codes:
            return "wrong", f"exit code {self.code}, not {' or '.join(map(str, codes))}: {self.err[-300:]}"
        return None


class Command:
    """A command that runs; what it says goes to files, so that no pipe is ever full."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        way: Sequence[str] = (),
        name: str = "said",
        say: Path | None = None,
        **env: str,
    ) -> None:
        """Start it in a folder.

        Args:
            arguments: Of the command.
            folder: Working directory.
            way: What runs it; by default spdify, forked from here.
            name: Of the files with what it says.
            say: Their folder; by default the working directory.
            env: What its environment has besides.
        """
        self.out, self.err = (say or folder) / f"{name}.out", (say or folder) / f"{name}.err"
        self.process: Forked | subprocess.Popen[bytes]
        if not way:
            self.process = Forked(arguments, folder, env=environment(**env), out=self.out, err=self.err)
            return
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*way, *arguments], cwd=folder, env=environment(**env), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
            )  # fmt: skip

    def wait_for(self, words: str, patience_s: float = PATIENCE_S) -> bool:
        """Wait until it has said something; False where it ended without."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if words in _text(self.err):
                return True
            if ended:
                return False
            time.sleep(LOOK_S)
        return False

    def everyone(self) -> list[psutil.Process]:
        """Give it and all that it has started, in whatever group."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Kill it and all that it has started, at once."""
        everyone = self.everyone()
        for one in everyone:
            one.kill()
        self.process.wait()
        psutil.wait_procs(everyone)

    def end(self, patience_s: float = PATIENCE_S) -> Done:
        """Wait for its end."""
        try:
            code: int | None = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        return Done(code, *(_text(file) for file in (self.out, self.err)))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def environment(**changes: str) -> dict[str, str]:
    """Give the environment of a command: one thread, this checkout, no network."""
    path = os.pathsep.join(filter(None, (changes.pop("first", ""), str(ROOT))))
    fixed = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    return {**os.environ, **fixed, **changes}


def run(arguments: Sequence[str], folder: Path, *, name: str = "again", **env: str) -> Done:
    """Run a command to its end."""
    return Command(arguments, folder, name=name, **env).end()


def shell(script: str) -> tuple[str, ...]:
    """Give a way to run commands by a script of bash; `"$@"` is the command."""
    return ("/bin/bash", "-c", script, "bash", *SPDIFY)


def strays(folder: Path) -> list[str]:
    """List what a killed command was writing."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"{STRAY}*"))
