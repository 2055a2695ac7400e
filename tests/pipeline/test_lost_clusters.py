"""What a command does where its cluster is lost, where memory runs out there, and where it is asked to end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.rays import needs_ray

pytestmark = needs_ray
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)
}
BEGIN = """
import os, signal, time
from functools import partial
from spdify.cli.signals import asked_to_end, take_signals
from spdify.errors import SpdifyError
from spdify.pipeline.clusters import ClusterSettings, Task, connected
"""
NODE = "num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=100 * 2**20"
#: The driver's own node is killed: what runs on the others has not failed.
RAYLET = f"""
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args=dict({NODE}))
try:
    with connected(ClusterSettings(cluster.address)) as one:
        ends = one.run([Task(str(n), partial(time.sleep, 1)) for n in range(9)])
        print(next(ends).name)
        cluster.head_node.kill_raylet(check_alive=False)
        print([end.lost for end in ends])
except SpdifyError as error:
    print(error.message)
finally:
    cluster.shutdown()
"""
#: The only node that fits a task is lost, and another comes.
LAST_NODE = f"""
from ray.cluster_utils import Cluster
node = dict({NODE})
cluster = Cluster(initialize_head=True, head_node_args=node | dict(num_cpus=0))
cluster.add_node(**node)
def say(text):
    print(text)
    cluster.add_node(**node)
try:
    with connected(ClusterSettings(cluster.address), say) as one:
        ends = one.run([Task(str(n), partial(time.sleep, 3)) for n in range(3)])
        print(next(ends).name)
        cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)
        print(sorted(end.name + end.lost for end in ends))
finally:
    cluster.shutdown()
"""
#: Every task is killed for its memory, each time.
MEMORY = f"""
from ray.cluster_utils import Cluster
limits = dict(memory_usage_threshold=0.01, memory_monitor_refresh_ms=250, min_memory_free_bytes=-1)
cluster = Cluster(initialize_head=True, head_node_args=dict({NODE}, _system_config=limits))
try:
    with connected(ClusterSettings(cluster.address, retries=1)) as one:
        (end,) = one.run([Task("t", partial(time.sleep, 600))])
        print(end.for_memory, end.lost)
finally:
    cluster.shutdown()
"""
#: SIGTERM while tasks run.
SIGTERM = """
import threading
take_signals()
before = signal.getsignal(signal.SIGTERM)
try:
    with connected(ClusterSettings()) as one:
        print(signal.getsignal(signal.SIGTERM) is before)
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        list(one.run([Task("t", partial(time.sleep, 60))]))
except SystemExit:
    print("put in order", asked_to_end())
"""


def _said(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], env=ENVIRONMENT, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_task_is_not_lost_with_the_cluster() -> None:
    assert "lost the cluster: The task's local raylet died" in _said(RAYLET)


def test_the_last_node_that_fits_may_come_back() -> None:
    said = _said(LAST_NODE).splitlines()
    assert "no node is left that fits a task: waiting for one to come back" in said
    assert "['1', '2']" in said


def test_memory_kills_are_limited_by_retries() -> None:
    assert "True killed where the memory of its node ran out, with --retries 1" in _said(MEMORY)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_a_request_to_end_is_followed() -> None:
    assert _said(SIGTERM).split("\n")[:2] == ["True", "put in order 15"]
