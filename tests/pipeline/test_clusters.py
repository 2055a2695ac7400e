"""Tasks on a Ray cluster of two nodes."""

from __future__ import annotations

import operator
import os
import pickle
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from spdify.errors import BundleError, UsageError
from spdify.pipeline import clusters
from spdify.pipeline.clusters import ClusterSettings, Task, connected
from spdify.pipeline.loading import load
from tests.rays import needs_ray, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as cluster:
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
        assert _run(ClusterSettings(address), Task("t", partial(os.getenv, "OMP_NUM_THREADS"))) == {"t": "1"}

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

    def test_a_worker_that_dies_is_tried_again_and_then_told(self, address: str) -> None:
        suicide = Task("dies", partial(signal.raise_signal, signal.SIGKILL))
        found = _run(ClusterSettings(address, retries=1), suicide, Task("lives", partial(operator.add, 1, 1)))
        assert found["lives"] == 2
        assert found["dies"].startswith("lost with its worker or its node, 2 times")


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


def test_a_fault_survives_the_way_between_processes() -> None:
    again = pickle.loads(pickle.dumps(UsageError("cannot", hint="Do.")))  # noqa: S301 - its own
    assert (type(again), again.message, again.hint) == (UsageError, "cannot", "Do.")
