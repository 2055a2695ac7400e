"""The jobs of a sweep on a Ray cluster: each node runs a job as one machine would, in a forked process with limits."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from spdify.pipeline.clusters import Task
from spdify.zoo.memory import MOST_GB
from spdify.zoo.workers import Ended, Limits, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from spdify.pipeline.clusters import Cluster
    from spdify.zoo.workers import Job

_PREPARED: set[bytes] = set()


@dataclass
class RayWorkers:
    """Runs jobs on the nodes of a cluster and gives back how each ended.

    Attributes:
        cluster: Where.
        limits: `timeout_s` is for one job, `memory_gb`, too; 0 becomes a share that every node has for each of its
            jobs, so that the outcome does not depend on where a job runs, and beside what.
        peak_memory_bytes: Largest memory of one job that was seen so far.
    """

    cluster: Cluster
    limits: Limits
    peak_memory_bytes: int = 0

    def __post_init__(self) -> None:
        """Settle the memory."""
        memory_gb = self.limits.memory_gb or round(min(MOST_GB, self.cluster.memory_gb), 1)
        self.limits = replace(self.limits, memory_gb=memory_gb)

    def run(self, jobs: Iterable[Job], prepare: Callable[[], None]) -> Generator[Ended, None, None]:
        """Run all jobs, each anew on another node where its own is lost; close the iterator to end early."""
        tasks = (Task(job.name, partial(_run_here, job, self.limits, prepare)) for job in jobs)
        ends = self.cluster.run(tasks)
        try:
            for end in ends:
                failure: Literal["memory", "crash"] = "memory" if end.for_memory else "crash"
                ended = end.value or Ended(end.name, None, failure, end.lost, 0.0, 0)
                self.peak_memory_bytes = max(self.peak_memory_bytes, ended.peak_memory_bytes)
                yield ended
        finally:
            ends.close()


def _run_here(job: Job, limits: Limits, prepare: Callable[[], None]) -> Ended:
    """Run a job in a fork of this worker, which has loaded before what its jobs need."""
    key = pickle.dumps(prepare)
    if key not in _PREPARED:
        prepare()
        _PREPARED.add(key)
    (ended,) = Workers(replace(limits, jobs=1)).run([job])
    return ended
