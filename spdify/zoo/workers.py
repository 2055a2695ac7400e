"""Jobs in forked processes, each on its own: one that crashes, hangs or eats all memory costs nothing but itself.

Importing the libraries takes seconds, so that a fresh process per model is out of the question; a fork has them all.
Jobs see what the parent knows at the moment of the fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from spdify.zoo.memory import GIGABYTE, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

POLL_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Job:
    """Something to do in a process of its own; `run` gives the bytes that come back."""

    name: str
    run: Callable[[], bytes]


@dataclass(frozen=True)
class Limits:
    """What jobs may take: how many at a time, seconds for each, memory for all of them together."""

    jobs: int = 1
    timeout_s: float = 600.0
    memory_gb: float = 14.0


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        name: Of the job.
        payload: What it gave; None where it was lost.
        failure: Why it was lost.
        detail: The same in words.
        seconds: Wall time.
        peak_memory_bytes: Largest resident memory.
    """

    name: str
    payload: bytes | None
    failure: Literal["crash", "timeout", "memory"] | None
    detail: str
    seconds: float
    peak_memory_bytes: int


@dataclass
class _Worker:
    job: Job
    pid: int
    pipe: int
    started: float
    alone: bool
    received: bytearray = field(default_factory=bytearray)
    killed_for: Literal["timeout", "memory"] | None = None
    again: bool = False  # to be run once more, with nothing beside it


class Workers:
    """Runs jobs and gives back how each ended.

    Attributes:
        peak_memory_bytes: Largest memory of this process and all workers together that was seen so far.
    """

    def __init__(self, limits: Limits) -> None:
        """Take the limits."""
        self.limits = limits
        self.peak_memory_bytes = 0
        self._running: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._looked = 0.0
        self._killed: set[str] = set()

    def run(self, jobs: Iterable[Job], prepare: Callable[[], None] | None = None) -> Generator[Ended, None, None]:
        """Run all jobs, after `prepare` has loaded what they need; close the iterator to end early, which kills them.

        A job that is killed because all workers together hold too much runs again later, alone; only one that exceeds
        the budget by itself is lost to it. So does one that somebody else kills, as the system does where memory runs
        out: only what is killed again is lost. So the outcome does not depend on what ran beside it.
        """
        if prepare is not None:
            prepare()
        waiting, alone = deque(jobs), deque[Job]()
        try:
            while waiting or alone or self._running:
                self._fill(waiting, alone)
                for worker in self._collect():
                    ended = self._end(worker)
                    if worker.again:
                        alone.append(worker.job)
                    else:
                        yield ended
                self._enforce()
        finally:
            self._kill_all()

    def _fill(self, waiting: deque[Job], alone: deque[Job]) -> None:
        while waiting and len(self._running) < self.limits.jobs:
            self._start(waiting.popleft(), alone=False)
        if alone and not waiting and not self._running:
            self._start(alone.popleft(), alone=True)

    def _start(self, job: Job, *, alone: bool) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_child(job, writing)
        os.close(writing)
        with contextlib.suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(pid, pid)
        self._running[pid] = _Worker(job, pid, reading, time.monotonic(), alone or self.limits.jobs == 1)
        self._selector.register(reading, selectors.EVENT_READ, pid)

    def _collect(self) -> list[_Worker]:
        """Read what has come, and give the workers that have closed their pipe."""
        done = []
        for key, _ in self._selector.select(POLL_SECONDS):
            worker = self._running[key.data]
            chunk = os.read(worker.pipe, _CHUNK)
            if chunk:
                worker.received += chunk
            else:
                done.append(worker)
        return done

    def _end(self, worker: _Worker) -> Ended:
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        del self._running[worker.pid]
        _, status, usage = os.wait4(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - worker.started
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if worker.killed_for is None and code == 0:
            return Ended(worker.job.name, bytes(worker.received), None, "", seconds, peak)
        failure = worker.killed_for or "crash"
        if failure == "crash" and code == -signal.SIGKILL and worker.job.name not in self._killed:
            self._killed.add(worker.job.name)
            worker.again = True
        return Ended(worker.job.name, None, failure, self._words(failure, code), seconds, peak)

    def _words(self, failure: str, code: int) -> str:
        if failure == "timeout":
            return f"took longer than {self.limits.timeout_s:g} s"
        if failure == "memory":
            return f"held more than {self.limits.memory_gb:g} GB"
        if code == -signal.SIGKILL:
            return "the worker died of SIGKILL, twice"
        return f"the worker died of {signal.Signals(-code).name}" if code < 0 else f"the worker ended with {code}"

    def _enforce(self) -> None:
        """Kill what takes too long or holds too much."""
        now = time.monotonic()
        for worker in self._running.values():
            if now - worker.started > self.limits.timeout_s and worker.killed_for is None:
                worker.killed_for = "timeout"
                _kill(worker.pid)
        if now - self._looked < 2 * POLL_SECONDS:
            return
        self._looked = now
        held = {pid: resident_bytes(pid) for pid in self._running}
        self.peak_memory_bytes = max(self.peak_memory_bytes, sum(held.values()) + resident_bytes(os.getpid()))
        budget = self.limits.memory_gb * GIGABYTE
        dying = any(worker.killed_for is not None for worker in self._running.values())
        if sum(held.values()) > budget and not dying:  # else what is held is about to become less
            worker = self._running[max(held, key=lambda pid: held[pid])]
            worker.killed_for = "memory"
            worker.again = not worker.alone and held[worker.pid] <= budget
            _kill(worker.pid)

    def _kill_all(self) -> None:
        for worker in list(self._running.values()):
            _kill(worker.pid)
            self._end(worker)


def _kill(pid: int) -> None:
    """Kill a worker with whatever it has started."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _be_child(job: Job, writing: int) -> None:
    """Do the job and end; nothing of the parent's clean-up may run here."""
    code = 1
    try:
        _leave_parent()
        payload = memoryview(job.run())
        while payload:
            payload = payload[os.write(writing, payload) :]
        code = 0
    finally:
        os._exit(code)


def _leave_parent() -> None:
    """Take an own group (an interrupt is for the parent), die with the parent, and say nothing."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
