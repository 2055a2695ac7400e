"""Jobs on a cluster, without one: a stand-in runs them here."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from spdify.pipeline.clusters import Task, TaskEnd
from spdify.zoo.memory import MOST_GB
from spdify.zoo.ray_workers import RayWorkers
from spdify.zoo.workers import Job, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spdify.pipeline.clusters import Cluster

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def _cluster(memory_gb: float, **lost: Any) -> Cluster:  # noqa: ANN401 - what `TaskEnd` takes
    def run(tasks: Iterable[Task]) -> Iterator[TaskEnd]:
        for task in tasks:
            yield TaskEnd(task.name, **lost) if lost else TaskEnd(task.name, task.run())

    return cast("Cluster", SimpleNamespace(memory_gb=memory_gb, run=run))


def _hold() -> bytes:
    held = bytearray(b"x") * (400 << 20)
    while held:
        pass
    return b""


@pytest.mark.parametrize(("share", "given", "own"), [(2.34, 0.0, 2.3), (500.0, 0.0, MOST_GB), (2.34, 3.0, 3.0)])
def test_all_jobs_have_one_budget_wherever_they_run(share: float, given: float, own: float) -> None:
    assert RayWorkers(_cluster(share), Limits(memory_gb=given)).limits.memory_gb == own


def test_a_job_is_held_to_the_budget() -> None:
    (end,) = RayWorkers(_cluster(0.3), Limits(timeout_s=20, memory_gb=0)).run([Job("hungry", _hold)], int)
    assert (end.failure, end.detail) == ("memory", "held more than 0.3 GB")


def test_what_its_node_killed_for_memory_is_told_so() -> None:
    for for_memory, failure in ((True, "memory"), (False, "crash")):
        (end,) = RayWorkers(_cluster(1, lost="lost", for_memory=for_memory), Limits()).run([Job("job", bytes)], int)
        assert (end.failure, end.detail) == (failure, "lost")
