from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from spdify.zoo.memory import GIGABYTE, resident_bytes
from spdify.zoo.workers import Ended, Job, Limits, Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def fine() -> bytes:
    return b"fine"


def hang() -> bytes:
    time.sleep(60)
    return b""


def killed() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def raises() -> bytes:
    raise RuntimeError


def takes(megabytes: int, seconds: float = 60) -> bytes:
    block = bytearray(b"x") * (megabytes << 20)
    time.sleep(seconds)
    return str(len(block)).encode()


def budget(gigabytes: float) -> float:
    """Give the budget that leaves so much beside what a worker shares with this process."""
    return resident_bytes(os.getpid()) / GIGABYTE / 2 + gigabytes


def run(*jobs: Job, **limits: float) -> dict[str, Ended]:
    return {end.name: end for end in Workers(Limits(**limits)).run(jobs)}  # type: ignore[arg-type]


def test_each_job_gives_what_it_gives() -> None:
    ends = run(*(Job(str(n), lambda n=n: bytes([n]) * 300_000) for n in range(5)), jobs=2)
    assert {name: end.payload for name, end in ends.items()} == {str(n): bytes([n]) * 300_000 for n in range(5)}
    assert all(end.failure is None and end.peak_memory_bytes > 0 for end in ends.values())


def test_a_lost_job_takes_no_other_with_it() -> None:
    ends = run(Job("killed", killed), Job("raises", raises), Job("hang", hang), Job("fine", fine), jobs=2, timeout_s=1)
    assert ends["fine"].payload == b"fine"
    assert {name: end.failure for name, end in ends.items()} == {
        "killed": "crash", "raises": "crash", "hang": "timeout", "fine": None,
    }  # fmt: skip
    assert "SIGKILL" in ends["killed"].detail
    assert "1 s" in ends["hang"].detail


def test_a_job_that_is_killed_from_outside_runs_once_more(tmp_path: Path) -> None:
    def once() -> bytes:
        if not (tmp_path / "there").exists():
            (tmp_path / "there").touch()
            killed()
        return b"fine"

    (end,) = run(Job("once", once)).values()
    assert (end.payload, end.failure) == (b"fine", None)


@pytest.mark.parametrize(("job", "times", "detail"), [(killed, 2, "SIGKILL, twice"), (raises, 1, "ended with 1")])
def test_what_a_job_does_itself_is_a_finding_at_once(
    job: Callable[[], bytes], times: int, detail: str, tmp_path: Path
) -> None:
    def counted() -> bytes:
        with (tmp_path / "times").open("ab") as file:
            file.write(b".")
        return job()

    (end,) = run(Job("it", counted)).values()
    assert end.failure == "crash"
    assert end.detail.endswith(detail)
    assert (tmp_path / "times").stat().st_size == times


@LINUX
def test_a_job_that_exceeds_the_budget_by_itself_is_lost() -> None:
    ends = run(Job("hungry", lambda: takes(600)), Job("fine", fine), jobs=1, memory_gb=budget(0.4))
    assert ends["hungry"].failure == "memory"
    assert "held more than" in ends["hungry"].detail
    assert ends["fine"].payload == b"fine"


@LINUX
def test_jobs_that_exceed_it_only_together_run_one_after_the_other() -> None:
    ends = run(*(Job(str(n), lambda: takes(300, seconds=2)) for n in range(2)), jobs=2, memory_gb=budget(0.45))
    assert [end.failure for end in ends.values()] == [None, None]


def test_workers_see_what_the_parent_knows_when_they_start() -> None:
    known: list[str] = []
    workers = Workers(Limits(jobs=1))
    for end in workers.run(Job(str(n), lambda: ",".join(known).encode()) for n in range(3)):
        assert end.payload == ",".join(known).encode()
        known.append(end.name)
    assert known == ["0", "1", "2"]


def test_ending_early_kills_what_is_running() -> None:
    workers = Workers(Limits(jobs=2))
    with closing(workers.run([Job("hang", hang), Job("fine", fine)])) as ends:
        assert next(ends).name == "fine"
        pids = list(workers._running)
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
