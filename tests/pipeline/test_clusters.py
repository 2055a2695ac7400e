"""Tasks on a Ray cluster of two nodes."""

from __future__ import annotations

import math
import operator
import os
import pickle
import signal
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from spdify.errors import BundleError, SpdifyError, UsageError
from spdify.pipeline import clusters
from spdify.pipeline.clusters import Cluster, ClusterSettings, Task, connected
from spdify.pipeline.loading import load
from tests.rays import needs_ray, two_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spdify.pipeline.clusters import TaskEnd


DYING = "import os, signal\nopen({!r}, 'a').write('x')\nos.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)  # nodes would hand it on
        with two_nodes(cores=2) as cluster:
            yield cluster.address


def _run(settings: ClusterSettings, *tasks: Task) -> dict[str, Any]:
    with connected(settings) as cluster:
        return {end.name: end.lost or end.value for end in cluster.run(tasks)}


class TestOnTwoNodes:
    pytestmark: ClassVar = needs_ray

    def test_what_tasks_give_comes_back(self, address: str) -> None:
        tasks = [Task(str(n), partial(operator.mul, n, n)) for n in range(12)]
        assert _run(ClusterSettings(address), *tasks) == {str(n): n * n for n in range(12)}

    def test_cores_are_threads(self, address: str) -> None:
        assert _run(ClusterSettings(address, cpus=2), Task("t", partial(os.getenv, "OMP_NUM_THREADS"))) == {"t": "2"}

    def test_a_task_without_gpus_sees_none(self, address: str) -> None:
        hidden = partial(os.getenv, "CUDA_VISIBLE_DEVICES", "all of them")
        assert _run(ClusterSettings(address), Task("t", hidden)) == {"t": ""}

    def test_memory_of_a_task_is_a_share_that_every_node_has(self, address: str) -> None:
        with connected(ClusterSettings(address)) as one, one._asking():
            least = min(node["memory"] for node in one._alive()) / clusters.GIGABYTE
            assert one.memory_gb == pytest.approx(least / 2)

    def test_a_fault_is_told_as_it_was_raised(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"spdify\.json") as caught:
            _run(ClusterSettings(address), Task("load", partial(load, str(tmp_path))))
        assert caught.value.hint

    def test_a_task_that_fits_no_node(self, address: str) -> None:
        with pytest.raises(UsageError, match="it is to have 64 CPU, and none of the 2 nodes"):
            _run(ClusterSettings(address, cpus=64), Task("t", os.getpid))

    def test_other_versions_on_a_node(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clusters, "_deciding_versions", lambda: {"torch": "0.1"})
        with pytest.raises(UsageError, match=r"it has torch .*, expected 0\.1"):
            _run(ClusterSettings(address), Task("t", os.getpid))

    def test_a_worker_that_dies_is_tried_again_and_then_told(self, address: str, tmp_path: Path) -> None:
        suicide = Task("dies", partial(exec, DYING.format(str(tmp_path / "tries"))))
        found = _run(ClusterSettings(address, retries=1), suicide, Task("lives", partial(operator.add, 1, 1)))
        assert found["lives"] == 2
        assert found["dies"].startswith("lost with its worker or its node, with --retries 1")
        assert (tmp_path / "tries").read_text() == "xx"


class FakeRay:
    """Ray, as far as `Cluster` asks it, on one node for one task at a time; `rounds` is what `wait` does in turn."""

    def __init__(self, *rounds: Exception | str) -> None:
        self.exceptions = pytest.importorskip("ray.exceptions")
        self.rounds = list(rounds)
        self.cores = 1
        self.there = True
        self.asked: list[str] = []

    def remote(self, _: object) -> FakeRay:
        return self

    def options(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda run, *_: run)

    def is_initialized(self) -> bool:
        return self.there

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.cores}}]

    def wait(self, pending: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        now = self.rounds.pop(0)
        if isinstance(now, ConnectionError):
            self.there = False
            raise now
        if isinstance(now, Exception):
            self.fault = now
            return pending[:1], pending[1:]
        self.fault = None
        self.cores = {"loses its node": 0, "has it back": 1}.get(now, self.cores)
        return (pending[:1], pending[1:]) if now == "ends" else ([], pending)

    def get(self, run: Callable[[], str]) -> str:
        if self.fault is not None:
            raise self.fault
        return run()

    def cancel(self, *_: object, **__: object) -> None:
        self.asked.append("cancel")


def _fake(ray: FakeRay, said: list[str] | None = None) -> Iterator[TaskEnd]:
    cluster = Cluster(ClusterSettings(), ray, [].append if said is None else said.append)
    return cluster.run([Task(name, partial(str, name)) for name in "abc"])


@pytest.mark.parametrize("kind", ["WorkerCrashedError", "NodeDiedError", "OutOfMemoryError"])
def test_a_task_that_is_lost_is_told_as_lost(kind: str) -> None:
    ray = FakeRay("ends", "ends", "ends")
    fault = getattr(ray.exceptions, kind)
    ray.rounds[1] = fault("it") if kind != "WorkerCrashedError" else fault()
    ends = list(_fake(ray))
    assert [end.value for end in ends] == ["a", None, "c"]
    assert "with --retries 3" in ends[1].lost
    assert ends[1].for_memory is (kind == "OutOfMemoryError")


@pytest.mark.parametrize("kind", ["LocalRayletDiedError", "RaySystemError"])
def test_a_cluster_that_is_lost_is_no_tasks_fault(kind: str) -> None:
    ray = FakeRay("ends")
    fault = getattr(ray.exceptions, kind)
    ray.rounds.append(fault() if kind == "LocalRayletDiedError" else fault("gone"))
    with pytest.raises(SpdifyError, match="lost the cluster: ") as caught:
        list(_fake(ray))
    assert "--resume" in caught.value.hint
    assert ray.asked == ["cancel"]


def test_a_lost_cluster_is_asked_nothing_more() -> None:
    ray = FakeRay(ConnectionError("Client is shutting down."))
    with pytest.raises(SpdifyError, match="lost the cluster: Client is shutting down"):
        list(_fake(ray))
    assert ray.asked == []  # Ray would start another one on this machine
    with pytest.raises(SpdifyError, match="lost the cluster: the connection has ended"):
        list(_fake(ray))


def test_without_a_node_that_fits_what_has_begun_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, said, slept = FakeRay("loses its node", "goes on", "ends", "ends", "ends", "ends"), list[str](), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        ray.cores = 1

    monkeypatch.setattr(clusters.time, "sleep", sleep)
    assert [end.value for end in _fake(ray, said)] == ["a", "b", "c"]
    assert said == ["no node is left that fits a task: waiting for one to come back"]
    assert slept  # with nothing handed over there is nothing to wait for


def test_without_an_address_a_running_cluster_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    asked = []

    def init(**how: object) -> None:
        asked.append(how["address"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ConnectionError("enough")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match="this machine: enough"), connected(ClusterSettings()):
        pass
    assert asked == ["local"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray is not installed") as caught, connected(ClusterSettings()):
        pass
    assert "spdify[ray]" in caught.value.hint


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:no", "127.0.0.1:99999999"])
def test_nothing_at_the_address(address: str) -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(UsageError, match=f"cannot reach a Ray cluster at {address}"),
        connected(ClusterSettings(address)),
    ):
        pass


@pytest.mark.parametrize("settings", [{"cpus": 0}, {"gpus": -1}, {"memory_gb": -1}, {"retries": -1}])
def test_resources_below_nothing(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="no resource below 0"), connected(ClusterSettings(**settings)):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpus": 1.5}, "1.5 GPUs: expected a part of one, or whole ones"),
        ({"cpus": math.nan}, "expected finite numbers"),
        ({"gpus": math.inf}, "expected finite numbers"),
        ({"memory_gb": math.inf}, "expected finite numbers"),
    ],
)
def test_resources_that_cannot_be(settings: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words), connected(ClusterSettings(**settings)):  # type: ignore[arg-type]
        pass


def test_a_fault_survives_the_way_between_processes() -> None:
    again = pickle.loads(pickle.dumps(UsageError("cannot", hint="Do.")))  # noqa: S301 - its own
    assert (type(again), again.message, again.hint) == (UsageError, "cannot", "Do.")
